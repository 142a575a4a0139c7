"""The benchmarks run, beside the model of the upstream line that is installed, and write their table."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "options"), [("train_step", ["--queries", "masked", "--depth", "1"]), ("encoder", [])]
)
def test_a_small_case(script, options, tmp_path):
    out = tmp_path / "table.md"
    sizes = ["--units", "10", "--bins", "2", "--repeats", "1", "--device", "cpu"]
    command = [sys.executable, BENCHMARKS / f"{script}.py", *sizes, *options, "--out", out]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = out.read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith("| 10 |")]
    assert "threads; torch" in "".join(lines) and f"python {BENCHMARKS / script}.py --units 10" in "".join(lines)
    assert len(row.split("|")) == len(next(line for line in lines if line.startswith("| units")).split("|"))
