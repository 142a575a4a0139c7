"""The table that a job prints at its end."""

import io
import json

import pytest
from rich.console import Console

from neurobridge_tb.report.terminal_table import print_rows

ROWS = [
    {
        "task": "co_smoothing",
        "recording": "mouse_1",
        "scores": {
            "NeuroBridge": {"value": 0.3861, "low": 0.378, "high": 0.393, "mean over units": 0.58},
            "Poisson GLM": {"value": 0.347, "low": 0.34, "high": 0.354, "mean over units": 0.51},
        },
        "by bin": [0.5, 0.4, 0.3, 0.2],
        "unavailable": {"CLIP": "needs its weights"},
    },
    {"task": "forward", "scores": {}, "by bin": [0.1]},
]


def printed(tmp_path, width):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"rows": ROWS}))
    console = Console(width=width, record=True, file=io.StringIO())
    print_rows(path, console)
    return console.export_text()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_longer_than_the_terminal_and_no_word_is_broken(tmp_path, width):
    text = printed(tmp_path, width)
    assert max(map(len, text.splitlines())) <= width
    assert "co_smoothing" in text


def test_values_stand_with_their_intervals(tmp_path):
    text = printed(tmp_path, 200)
    assert "0.386 (0.378-0.393)" in text
    assert "0.347 (0.340-0.354)" in text
    assert "0.500 … 0.200" in text
    assert "needs its weights" not in text


@pytest.mark.parametrize("width", [40, 60])
def test_no_column_is_left_out_of_a_narrow_terminal(tmp_path, width):
    assert printed(tmp_path, 200).count("co_smoothing") == 1
    narrow = printed(tmp_path, width)
    for text in ("Poisson", "0.386 (0.378-0.393)", "0.347 (0.340-0.354)", "0.580", "0.510", "0.500"):
        assert text in narrow or all(part in narrow for part in text.split())
    assert narrow.count("co_smoothing") > 1  # each table says whose the numbers are


def test_text_in_brackets_is_text(tmp_path):
    path = tmp_path / "retrieval.json"
    path.write_text(json.dumps({"forgetting": [{"scheme": "a [/b] [red]c", "[x]": 1}]}))
    console = Console(width=80, record=True, file=io.StringIO())
    print_rows(path, console)
    assert "a [/b] [red]c" in (text := console.export_text()) and "[x]" in text


def test_notes_are_printed(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"rows": [{"a": 1}], "notes": ["Pseudo-population: [x]"]}))
    console = Console(width=80, record=True, file=io.StringIO())
    print_rows(path, console)
    assert "- Pseudo-population: [x]" in console.export_text()


def test_a_run_without_rows_prints_nothing(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("{}")
    console = Console(record=True, file=io.StringIO())
    print_rows(path, console)
    assert console.export_text() == ""
