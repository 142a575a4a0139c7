"""Upstream's released source archive, which holds its examples and tests."""

import subprocess
import sys
import tarfile
from importlib.metadata import version

import pytest
from environments import link_dependencies


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """Upstream's source archive of the installed release, downloaded and unpacked."""
    folder = tmp_path_factory.mktemp("upstream")
    release = f"torch_brain=={version('torch_brain')}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "torch_brain", release]
    subprocess.run(command, cwd=folder, check=True)
    with tarfile.open(next(folder.glob("torch_brain-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob("torch_brain-*") if path.is_dir())


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the environments are made."""
    folder = tmp_path_factory.mktemp("beside")
    link_dependencies(folder)
    return folder
