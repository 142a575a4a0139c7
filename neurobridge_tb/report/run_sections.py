"""Sections of the report for runs whose result is a table: score, decode, finetune, forecast, adapt; several side by
side, and an overview of all."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurobridge_tb.report.report_tables import Row, Table
from neurobridge_tb.report.runs import Run
from neurobridge_tb.report.terminal_table import row_cells

_TITLES = {
    "experiment": "Experiments",
    "decode": "Decoding",
    "score": "Hidden units, areas and the future",
    "finetune": "Fine-tuned decoders",
    "forecast": "Forecasts",
    "adapt": "Adapted to new recordings",
    "latents": "Latents",
    "submit_nlb": "Neural Latents Benchmark",
    "submit_bwb": "BrainWideBench",
}
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


def run_sections(runs: list[Run]) -> list[dict[str, Any]]:
    """For each kind of job, its runs with their table, notes and figures."""
    sections = []
    for job, title in _TITLES.items():
        its = [run for run in runs if run.job == job and run.result]
        if its:
            sections.append({"id": job, "title": title, "runs": [_section(run) for run in its]})
    return sections


def overview(runs: list[Run]) -> Table | None:
    """All runs that have ended, with the command that made them."""
    rows = [
        Row([run.job, run.name, str(run.result.get("dataset", "")), str(run.result.get("command", ""))], "plain")
        for run in runs
        if run.result
    ]
    return Table(["job", "run", "recordings", "command"], {"": rows}) if len(rows) > 1 else None


def _section(run: Run) -> dict[str, Any]:
    target = run.result.get("target")
    return {
        "name": f"{run.name}: {target}" if target else run.name,
        "simulated": bool(run.result.get("simulated")),
        "table": result_table(run.result),
        "figures": [{"name": path.stem.replace("_", " "), "figure": _data_uri(path)} for path in _figures(run.folder)],
    }


def result_table(result: Mapping[str, Any]) -> Table | None:
    """The ``rows`` of a result; the row that its verdict calls the best stands out."""
    rows = result.get("rows") or []
    if not rows:
        return None
    cells = [dict(row_cells(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    kinds = ["model" if row.get("verdict") == "best" else "plain" for row in rows]
    texts = [Row([row.get(name, "–") for name in columns], kind) for row, kind in zip(cells, kinds, strict=True)]
    return Table(columns, {"": texts}, list(result.get("notes", ())))


def _figures(folder: Path) -> list[Path]:
    """Figures that a run wrote; where one lies as SVG and as PNG, the SVG."""
    found = [path for place in (folder / "figures", folder) for path in sorted(place.glob("*.svg"))]
    drawn = {path.stem for path in found}
    found += [path for place in (folder / "figures", folder) for path in sorted(place.glob("*.png"))]
    return [path for path in found if path.suffix == ".svg" or path.stem not in drawn]


def _data_uri(path: Path) -> str:
    return f"data:{_TYPES[path.suffix]};base64,{b64encode(path.read_bytes()).decode()}"
