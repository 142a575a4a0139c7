"""On torch_brain 0.1 the whole package imports, knows which line it is on, and its import stays light."""

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

pytest.importorskip("torch_brain.registry", reason="torch_brain 0.1 is not installed here (`make compat`)")

HEAVY = [
    "diffusers", "open_clip", "timm", "transformers", "lightning", "hydra", "matplotlib", "torchvision", "ray", "pynwb",
]  # fmt: skip


def test_import_knows_its_line_and_brings_no_heavy_package():
    code = (
        "import json, sys, neurobridge_tb, neurobridge_tb.datasets\n"
        "from neurobridge_tb._upstream import UPSTREAM_LINE\n"
        f"print(json.dumps([UPSTREAM_LINE, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == ["0.1", []]


def test_info_names_the_packages_of_this_line():
    from neurobridge_tb.cli.environment import describe

    assert (describe()["brainsets"], describe()["temporaldata"]) == ("0.2.2", "0.1.6")


def test_every_module_imports():
    import neurobridge_tb

    names = [m.name for m in pkgutil.walk_packages(neurobridge_tb.__path__, "neurobridge_tb.")]
    assert {"neurobridge_tb.jobs.pretrain", "neurobridge_tb.models.neurobridge"} <= set(names)
    for name in names:
        importlib.import_module(name)


def test_the_folder_of_processed_data_comes_from_the_brainsets_config(tmp_path, monkeypatch):
    import brainsets.datasets._utils as brainsets_utils

    from neurobridge_tb._upstream import get_processed_dir

    monkeypatch.setattr(brainsets_utils, "load_config", lambda path: {"processed_dir": str(tmp_path)})
    assert get_processed_dir() == str(tmp_path)
