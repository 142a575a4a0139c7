"""Virtual environments that see this one's packages, except for upstream and the plugin."""

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

INSTALLED = Path(sysconfig.get_path("purelib"))


def link_dependencies(folder: Path) -> None:
    """Make ``folder/dependencies``: links to the packages that both distributions need."""
    (folder / "dependencies").mkdir()
    own = ("torch_brain", "neurobridge_tb", "_neurobridge_tb", "_editable_impl", "brainsets", "__pycache__")
    for entry in INSTALLED.iterdir():
        if not entry.name.startswith(own) and entry.suffix != ".pth":
            (folder / "dependencies" / entry.name).symlink_to(entry)


@dataclass
class Environment:
    """A virtual environment beside the folder ``dependencies``; ``installer`` is pip or uv."""

    folder: Path
    installer: str

    def __post_init__(self):
        subprocess.run([sys.executable, "-m", "venv", self.folder, "--without-pip"], check=True)
        (self.folder / "home").mkdir()
        for folder in (self.folder, self.folder / "home"):
            folder.chmod(0o700)  # whatever the umask: some packages keep no cache where others may write
        (self.site_packages / "dependencies.pth").write_text(str(self.folder.parent / "dependencies"))

    @property
    def site_packages(self):
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(self, *command):
        hidden = ("PYTHONPATH", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        folders = [self.folder / "bin", Path(sys.executable).parent]  # `uv` may be in the second only
        environment["PATH"] = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
        environment["HOME"] = str(self.folder / "home")  # no brainsets settings of the user's
        environment["UV_CACHE_DIR"] = str(self.folder.parent / "uv_cache")
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, umask=0o022)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, target, *, editable=False):
        python = str(self.folder / "bin" / "python")
        pip = {"pip": (sys.executable, "-m", "pip", "--python", python), "uv": ("uv", "pip")}[self.installer]
        where = ("--python", python) if self.installer == "uv" else ()
        self.run(*pip, "install", *where, "--no-deps", *(["-e"] if editable else []), str(target))
