"""The benchmarks run, beside the model of the upstream line that is installed, and write their table."""

import importlib
import logging
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "options"), [("train_step", ["--queries", "masked", "--depth", "1"]), ("encoder", [])]
)
def test_a_small_case(script, options, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(logging, "disable", lambda level: None)  # the script's process ends with it, this one does not
    module = importlib.import_module(script)
    if script == "encoder":  # two more processes would show nothing new
        monkeypatch.setattr(sys.modules["side_by_side"], "peak_memory", lambda *_: 1.0)
    out = tmp_path / "table.md"
    sizes = ["--units", "10", "--bins", "2", "--repeats", "1", "--device", "cpu"]
    result = CliRunner().invoke(module.main, [*sizes, *options, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    title, *lines = out.read_text(encoding="utf-8").splitlines()
    heads, _, row = (line.strip("| ").split(" | ") for line in lines if line.startswith("|"))
    assert title.startswith("# ") and any("threads; torch" in line for line in lines)
    cells = dict(zip(heads, row, strict=True))
    assert cells["units"] == "10" and float(cells["NeuroBridge MB"].replace(",", "")) > 0
