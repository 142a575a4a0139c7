"""What is in a recording, its faults, and which images have files, as tables for a terminal."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neurobridge_tb.datasets.image_binding import ImageBinding
from neurobridge_tb.datasets.validation.contents import Contents, Fault
from neurobridge_tb.errors import printable

_SHOWN = 10


def print_recording(console: Console, path: Path, contents: Contents, faults: list[Fault]) -> None:
    """Print one recording, see :func:`neurobridge_tb.datasets.validation.examination.examine`."""
    console.rule(f"[bold]{_safe(str(path))}", align="left")
    if contents.descriptions:
        names = contents.descriptions
        who = ", ".join(f"{k} {names.get(f'{k}.id', '?')}" for k in ("brainset", "subject", "session"))
        simulated = ", simulated" if names.get("brainset.origin_version") == "simulated" else ""
        console.print(_safe(who) + simulated)
    if len(contents.domain):
        console.print(f"{_seconds(contents.domain)}, from {contents.domain[0, 0]:g} to {contents.domain[-1, 1]:g} s")
    for table in (_units(contents), _activity(contents), _events(contents), _intervals(contents)):
        if table.row_count:
            console.print(table)
    for fault in sorted(faults, key=lambda f: not f.is_error):
        kind = "[bold red]Fault" if fault.is_error else "[bold yellow]Look at"
        console.print(f"{kind}[/] {_safe(f'{fault.place}: {fault.found}. {fault.fix}')}", highlight=False)
    if not any(fault.is_error for fault in faults):
        console.print("[green]No faults.")


def print_binding(console: Console, binding: ImageBinding, advice: str) -> None:
    """Print which image ids have a file, and the first of those that have none or several.

    Args:
        console: Where to.
        binding: From :func:`neurobridge_tb.datasets.image_binding.bind_images`.
        advice: What to do where images are missing; may be empty.
    """
    n_ids = len(binding.files) + len(binding.missing) + len(binding.doubled)
    console.print(f"{len(binding.files):,} of {n_ids:,} image ids have one file in {_safe(str(binding.folder))}")
    for title, rows in (
        ("missing", [(image_id, "") for image_id in binding.missing]),
        ("doubled", [(image_id, ", ".join(files)) for image_id, files in binding.doubled.items()]),
    ):
        table = _table(f"{len(rows):,} {title}", "image id", *(["files"] if title == "doubled" else []))
        for row in rows[:_SHOWN]:
            table.add_row(*(_safe(cell) for cell in row[: len(table.columns)]))
        if len(rows) > _SHOWN:
            table.add_row(f"… and {len(rows) - _SHOWN:,} more")
        if rows:
            console.print(table)
    if binding.missing and advice:
        console.print(_safe(advice.strip()))


def _units(contents: Contents) -> Table:
    spikes, seconds = contents.spikes_per_unit, float(np.diff(contents.domain, axis=1).sum())
    if spikes is None and "spike_counts/value" in contents.grids:
        shape, rate, scan = contents.grids["spike_counts/value"]
        spikes, seconds = scan.total.astype(np.int64), shape[0] / rate
    areas = contents.areas if contents.areas is not None else np.full(len(contents.unit_ids), "(no areas)")
    if spikes is None or len(spikes) != len(areas) or not seconds > 0:
        table = _table("Units", "area", "units")
        for area in np.unique(areas):
            table.add_row(_safe(str(area)), f"{(areas == area).sum():,}")
        return table
    table = _table("Units", "area", "units", "spikes", "Hz a unit")
    for area in np.unique(areas):
        its = spikes[areas == area]
        table.add_row(_safe(str(area)), f"{len(its):,}", f"{its.sum():,}", f"{its.mean() / seconds:.3g}")
    return table


def _activity(contents: Contents) -> Table:
    table = _table("Regular series", "name", "shape", "bin (s)", "mean", "range", "NaN")
    for name, (shape, rate, scan) in contents.grids.items():
        finite = scan.finite.sum()
        mean = f"{scan.total.sum() / finite:.4g}" if finite else ""
        spread = f"{scan.minimum:.4g} to {scan.maximum:.4g}" if finite else ""
        bin_size = f"{1 / rate:g}" if rate > 0 else "?"
        table.add_row(_safe(name), str(shape), bin_size, mean, spread, f"{scan.n_nan / np.prod(shape):.1%}")
    return table


def _events(contents: Contents) -> Table:
    table = _table("Irregular series", "name", "rows", "from (s)", "to (s)", "columns")
    for name, (scan, columns) in contents.events.items():
        held = ", ".join(f"{k} {shape}" if len(shape) > 1 else k for k, shape in columns.items())
        table.add_row(_safe(name), f"{scan.count:,}", f"{scan.first:g}", f"{scan.last:g}", _safe(held))
    return table


def _intervals(contents: Contents) -> Table:
    table = _table("Intervals", "name", "rows", "in all", "columns")
    for name, (bounds, columns) in contents.intervals.items():
        table.add_row(_safe(name), f"{len(bounds):,}", _seconds(bounds), _safe(", ".join(columns)))
        if columns:
            table.caption = "`neurobridge decode target=NAME.COLUMN` decodes a column"
    return table


def _safe(text: str) -> str:
    """Text from a file, without markup or control characters."""
    return escape(printable(text))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _seconds(bounds: np.ndarray) -> str:
    seconds = float(np.diff(bounds, axis=1).sum())
    return f"{seconds:.6g} s" if seconds < 600 else f"{seconds / 60:.4g} min"
