"""The version comes from tags, also where there are none; the changelog and the citation name the same one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
pytest.importorskip("hatch_vcs")


def git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def version(folder: Path) -> str:
    command = [sys.executable, "-m", "hatchling", "metadata", "version"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with our build settings and one commit."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_a_tag_is_the_version(checkout):
    assert re.fullmatch(r"0\.2\.0\.dev1\+g[0-9a-f]+", version(checkout))  # no tag yet
    git(checkout, "tag", "v3.2.1")
    assert version(checkout) == "3.2.1"
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert version(checkout).startswith("3.2.2.dev1+g")


def test_without_git_there_is_a_version(checkout):
    shutil.rmtree(checkout / ".git")
    assert version(checkout) == "0.2.0.dev0"
    (checkout / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: neurobridge-tb\nVersion: 3.2.1\n")  # an sdist
    assert version(checkout) == "3.2.1"


def test_changelog_and_citation_name_one_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)[0]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == newest
