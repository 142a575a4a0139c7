"""The forecaster's benchmark runs beside POYO and writes its table."""

import importlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from neurobridge_tb._upstream import UPSTREAM_LINE

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(UPSTREAM_LINE == "0.1", reason="POYO as of torch_brain 0.2")
def test_a_small_case(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("forecast_step")
    out = tmp_path / "table.md"
    sizes = "-n 6 --past 0.5 --future 0.24 --tokens 120 --forecaster tiny --repeats 1 --cpu-time".split()
    result = CliRunner().invoke(module.main, [*sizes, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    heads, _, row = (
        line.strip("| ").split(" | ") for line in out.read_text(encoding="utf-8").splitlines() if line.startswith("|")
    )
    cells = dict(zip(heads, row, strict=True))
    assert cells["units"] == "6" and cells["windows"] == "4" and int(cells["tokens"]) > 60
    assert float(cells["POYO ms"]) > 0
