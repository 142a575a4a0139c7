"""Two processes align as one does with twice the batch: the contrastive loss is over the pairs of both."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_two_processes_align_as_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    small, processes = (importlib.import_module(name) for name in ("small_workspace", "processes"))
    small.make_shown(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, two = (processes.run("align", tmp_path, tmp_path / str(n), n) for n in (1, 2))
    assert len(one) > 30 and small.largest_difference(one, two) < 1e-4
