"""Whatever is typed, and whatever a recording's file holds, ends in a result or in one error: a sample."""

import importlib
import random
import shutil
from pathlib import Path

import pytest

from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.datasets.validation.examination import examine, refuse_faulty

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("fuzz")


def test_random_overrides_end_in_a_config_or_in_one_error(fuzz, tmp_path):
    cases = list(fuzz.fuzz_overrides(40, tmp_path, random.Random(1), run=False))
    assert [f"{case}\n{trace}" for case, trace in cases if trace is not None] == []


def test_damaged_recordings_are_examined_and_refused_without_a_traceback(fuzz, binned_root, tmp_path):
    rng = random.Random(2)

    def read(path):
        examine(path)
        refuse_faulty([path])
        dataset = BinnedRecordings(path.parent)
        dataset.get_sampling_intervals("train")

    for k in range(40):
        path = tmp_path / str(k) / "session0.h5"
        path.parent.mkdir()
        shutil.copy(binned_root / "session0.h5", path)
        how = fuzz.damage(path, rng)
        trace = fuzz.outcome_of(lambda path=path: read(path))
        assert trace is None, f"{how}\n{trace}"
