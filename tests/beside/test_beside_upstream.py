"""The plugin beside upstream, in virtual environments of their own: POYO, ``brainsets`` and the plugin all work.

Upstream is installed from its released source archive in editable mode, as its CONTRIBUTING prescribes, or as it stands
in this environment. Needs a network to the package index: ``make beside``.
"""

import os
import runpy
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import h5py
import pytest

pytestmark = pytest.mark.beside

ROOT = Path(__file__).parents[2]
OURS = sorted(folder.parent.name for folder in (ROOT / "brainsets_pipelines").glob("*/pipeline.py"))
INSTALLED = Path(sysconfig.get_path("purelib"))
IMPORTS = """
import neurobridge_tb, torch_brain
from neurobridge_tb.datasets import Tvsd
from torch_brain.models import POYO
neurobridge_tb.NeuroBridgeModel(sequence_length=1.0, latent_step=0.25)
print(torch_brain.__file__, neurobridge_tb.__file__)
"""


@dataclass
class Environment:
    """A virtual environment that sees this one's packages, except for upstream and the plugin."""

    folder: Path
    installer: str

    def __post_init__(self):
        subprocess.run([sys.executable, "-m", "venv", self.folder, "--without-pip"], check=True)
        (self.site_packages / "dependencies.pth").write_text(str(self.folder.parent / "dependencies"))

    @property
    def site_packages(self):
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(self, *command):
        hidden = ("PYTHONPATH", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        folders = [self.folder / "bin", Path(sys.executable).parent]  # `uv` may be in the second only
        environment["PATH"] = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
        environment["HOME"] = str(self.folder)  # no brainsets settings of the user's
        environment["UV_CACHE_DIR"] = str(self.folder.parent / "uv_cache")
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, target, *, editable=False):
        python = str(self.folder / "bin" / "python")
        pip = {"pip": (sys.executable, "-m", "pip", "--python", python), "uv": ("uv", "pip")}[self.installer]
        where = ("--python", python) if self.installer == "uv" else ()
        self.run(*pip, "install", *where, "--no-deps", *(["-e"] if editable else []), str(target))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the environments are made, with links to the packages that both distributions need."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "dependencies").mkdir()
    own = ("torch_brain", "neurobridge_tb", "_neurobridge_tb", "_editable_impl", "brainsets", "__pycache__")
    for entry in INSTALLED.iterdir():
        if not entry.name.startswith(own) and entry.suffix != ".pth":
            (folder / "dependencies" / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def wheel(folder):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    return next(folder.glob("neurobridge_tb-*.whl"))


@pytest.fixture(scope="module")
def raw(folder):
    """Tiny simulated raw files of TVSD."""
    write = runpy.run_path(str(ROOT / "tests" / "pipelines" / "tvsd_raw.py"))
    monkey = folder / "raw" / "tvsd" / "monkeyF"
    write["write_responses"](monkey / "THINGS_normMUA.mat", write["response_arrays"]())
    write["write_image_names"](monkey / "_logs" / "things_imgs.mat", {"train": write["TRAIN"], "test": write["TEST"]})
    (monkey.parent / "simulation.json").write_text('{"simulated": true}')
    return folder / "raw"


def check_all_works(environment, raw, *, upstream, plugin):
    """Both packages import from where they were installed; the command lists, finds and runs our pipelines."""
    python = str(environment.folder / "bin" / "python")
    found = environment.run(python, "-c", IMPORTS).split()
    assert [Path(path).parents[1] for path in found] == [upstream, plugin]

    brainsets = str(environment.folder / "bin" / "brainsets")
    listed = environment.run(brainsets, "list").splitlines()
    assert {f"- {name}" for name in OURS} | {"- perich_miller_population_2018"} <= set(listed)
    assert len(listed) == len(set(listed))

    processed = environment.folder / "processed"
    folders = ("--raw-dir", str(raw), "--processed-dir", str(processed))
    environment.run(brainsets, "prepare", "tvsd", "--single", "monkeyF_norm", *folders)
    with h5py.File(processed / "tvsd" / "monkeyF_norm.h5") as file:
        assert file["mua/value"].shape[1] == 1024


@pytest.mark.parametrize("plugin_editable", [False, True], ids=["plugin wheel", "plugin editable"])
@pytest.mark.parametrize("plugin_first", [False, True], ids=["upstream first", "plugin first"])
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_beside_an_editable_upstream(folder, wheel, checkout, raw, installer, plugin_first, plugin_editable):
    environment = Environment(folder / f"{installer}{plugin_first:d}{plugin_editable:d}", installer)
    installations = [
        lambda: environment.install(checkout, editable=True),
        lambda: environment.install(ROOT if plugin_editable else wheel, editable=plugin_editable),
    ]
    for install in reversed(installations) if plugin_first else installations:
        install()
    plugin = ROOT if plugin_editable else environment.site_packages
    check_all_works(environment, raw, upstream=checkout, plugin=plugin)


def test_beside_the_released_upstream(folder, wheel, raw):
    environment = Environment(folder / "released", "pip")
    environment.install(f"torch_brain=={version('torch_brain')}")
    environment.install(wheel)
    check_all_works(environment, raw, upstream=environment.site_packages, plugin=environment.site_packages)

    names = {path.split("/")[0] for path in wheel_record(environment)}
    assert {name for name in names if not name.startswith("neurobridge_tb")} == {"_neurobridge_tb_brainsets.py", ".."}


def wheel_record(environment):
    """What the plugin's installation wrote, by its own record; ``..`` is the folder of commands."""
    record = next(environment.site_packages.glob("neurobridge_tb-*.dist-info/RECORD"))
    return [line.split(",")[0] for line in record.read_text().splitlines() if "__pycache__" not in line]
