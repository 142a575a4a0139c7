"""``make contrib``: each piece laid into upstream's released source passes its linters, types, docs and tests."""

import shutil
import subprocess
from pathlib import Path

import pytest
from environments import Environment

pytestmark = pytest.mark.beside

ROOT = Path(__file__).parents[2]
# Upstream's extras ``dev`` and ``docs``, less what is here already.
DEV = ("pytest<9", "boto3~=1.41.0", "mne~=1.11.0", "mne-bids", "dandi", "ruff", "ty")
DOCS = (
    "sphinx", "pydata-sphinx-theme", "myst-parser", "myst-nb", "sphinx-autodoc-typehints", "sphinx-inline-tabs",
    "sphinx-rtd-theme", "sphinx-tabs", "sphinx-design", "sphinx-copybutton", "sphinxcontrib-sass",
)  # fmt: skip


@pytest.fixture(scope="module")
def environment(folder):
    environment = Environment(folder / "kit", "uv")
    python = str(environment.folder / "bin" / "python")
    environment.run("uv", "pip", "install", "-q", "--python", python, *DEV, *DOCS)
    return environment


@pytest.mark.parametrize("piece", ["rotary", "entrypoints", "tvsd", "allen"])
def test_a_piece_passes_upstreams_checks(environment, checkout, tmp_path, piece):
    upstream = tmp_path / "torch_brain"
    shutil.copytree(checkout, upstream, ignore=shutil.ignore_patterns("*.egg-info"))
    python = str(environment.folder / "bin" / "python")
    said = environment.run(python, str(ROOT / "contrib" / "kit.py"), "--upstream", str(upstream), "--piece", piece)
    assert " passed" in said and "Types: nothing new" in said and "Docs: nothing new" in said
    assert f"Branch neurobridge/{piece}" in said
    git = ["git", "-C", str(upstream)]
    subject, changed = (
        subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout
        for command in (["log", "-1", "--format=%s"], ["diff", "--name-only", "main", f"neurobridge/{piece}"])
    )
    assert ": " in subject and "CHANGELOG.md" in changed and "tests/" in changed


def test_a_checkout_with_changes_is_left_alone(environment, checkout, tmp_path):
    upstream = tmp_path / "torch_brain"
    shutil.copytree(checkout, upstream)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=upstream, check=True)
    command = [str(environment.folder / "bin" / "python"), str(ROOT / "contrib" / "kit.py")]
    done = subprocess.run([*command, "--upstream", str(upstream), "--piece", "rotary"], capture_output=True, text=True)
    assert done.returncode and "without changes" in done.stderr
