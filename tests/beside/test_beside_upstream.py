"""The plugin beside upstream, in virtual environments of their own: POYO, ``brainsets`` and the plugin all work.

Upstream is installed from its released source archive in editable mode, as its CONTRIBUTING prescribes, or as it stands
in this environment. Needs a network to the package index: ``make beside``.
"""

import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import h5py
import pytest
from environments import Environment

pytestmark = pytest.mark.beside

ROOT = Path(__file__).parents[2]
OURS = sorted(folder.parent.name for folder in (ROOT / "brainsets_pipelines").glob("*/pipeline.py"))
IMPORTS = """
import neurobridge_tb, torch_brain
from neurobridge_tb.datasets import Tvsd
from torch_brain.models import POYO
neurobridge_tb.NeuroBridgeModel(sequence_length=1.0, latent_step=0.25)
print(torch_brain.__file__, neurobridge_tb.__file__)
"""


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
