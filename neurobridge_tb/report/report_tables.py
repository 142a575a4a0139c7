"""The report's tables: each figure beside chance and baselines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neurobridge_tb.report.result_names import is_model, label
from neurobridge_tb.report.workspace import Results

Content = Mapping[str, Any]
_SPREAD = ("least", "median", "largest")


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, a line a row."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |\n" for line in lines)


@dataclass(frozen=True)
class Row:
    """A table row: its cells, the first one its name, and its kind: "model", "baseline" or "chance"."""

    cells: list[str]
    kind: str


@dataclass(frozen=True)
class Table:
    """A table: column names, rows in titled groups (one group "" for none), and notes to stand below it."""

    columns: list[str]
    groups: dict[str, list[Row]]
    notes: list[str] = field(default_factory=list)


def pretraining_table(pretrain: Content | None) -> Table | None:
    """One row a masking scheme: the model, then each baseline."""
    if not (pretrain and pretrain.get("rows")):
        return None
    rows = pretrain["rows"]
    baselines = list(dict.fromkeys(name for row in rows for name in row["baselines"]))
    cells = [
        Row(
            [f"{row['scheme']}, {row['metric']}", number(row["model"])] + [_baseline(row, name) for name in baselines],
            "plain",
        )
        for row in rows
    ]
    notes = [
        f"On the {pretrain.get('split', 'validation')} split. "
        "Masked MSE: lower is better; in brackets, model less baseline, 95 % interval over windows. "
        "Bits/spike: higher is better, 0 is each unit's training mean rate."
    ]
    return Table(["masking scheme, metric", "model", *map(label, baselines)], {"": cells}, notes)


def _baseline(row: Content, name: str) -> str:
    difference = row.get("model less baseline", {}).get(name)
    value = number(row["baselines"].get(name))
    return value if difference is None else f"{value} ({difference['low']:+.4f} to {difference['high']:+.4f})"


def forgetting_table(align: Content | None) -> Table | None:
    """Masked prediction before and after alignment, so that forgetting is a number."""
    if not (align and align.get("forgetting")):
        return None
    rows = [
        Row([f"{row['scheme']}, {row['metric']}", number(row["before"]), number(row["after"])], "plain")
        for row in align["forgetting"]
    ]
    return Table(["masking scheme, metric", "before alignment", "after"], {"": rows})


def retrieval_groups(retrieval: Content) -> dict[str, list[Content]]:
    """Rows by direction and kind of trials, in the order of the file; a neural ceiling stands with neural to image."""
    groups: dict[str, list[Content]] = {}
    for row in retrieval["rows"]:
        direction = row["direction"].replace("neural to neural", "neural to image")
        groups.setdefault(f"{direction}, {row['trials']}", []).append(row)
    return groups


def retrieval_table(retrieval: Content) -> Table:
    """Top-1 and top-5 with their intervals, models and baselines, chance under each group."""
    recordings = retrieval.get("recordings", {})
    levels = {f"chance ({name})": of["chance"] for name, of in recordings.items()} if len(recordings) > 1 else {}
    chance = [
        Row([name, *(percent(level[k]) for k in ("top1", "top5"))], "chance")
        for name, level in (levels or {"chance": retrieval["chance"]}).items()
    ]
    groups = {
        title: [Row([row["model"], interval(row["top1"]), interval(row["top5"])], _kind(row["model"])) for row in rows]
        + chance
        for title, rows in retrieval_groups(retrieval).items()
    }
    notes = ["In brackets: 95 % bootstrap interval over images.", *retrieval.get("notes", [])]
    return Table(["model", "top-1", "top-5"], groups, notes)


def layer_table(retrieval: Content) -> Table | None:
    """Top-1 from activity to image by each target layer alone and by all together, or None where there is one layer."""
    by_layer = retrieval.get("rows by layer") or {}
    if not by_layer:
        return None
    layers = {**by_layer, "all layers": retrieval["rows"]}
    groups: dict[str, list[Row]] = {}
    for trials in ("repeat average", "single trial"):
        scores: dict[str, dict[str, Any]] = {}
        for layer, rows in layers.items():
            for row in rows:
                if (row["trials"], row["direction"]) == (trials, "neural to image"):
                    scores.setdefault(row["model"], {})[layer] = row["top1"]
        groups[trials] = [
            Row([name, *(interval(of[layer]) if layer in of else "–" for layer in layers)], _kind(name))
            for name, of in scores.items()
            if set(of) & set(by_layer)
        ]
    weights = retrieval.get("layer weights", {})
    notes = [
        "Top-1. Every decoder gets the same targets; the weights of “all layers” are the likeliest on validation "
        "presentations, for each decoder its own."
    ]
    if weights:
        notes.append("NeuroBridge's weights: " + ", ".join(f"{k} {v:.2f}" for k, v in weights.items()) + ".")
    return Table(["decoder", *layers], groups, notes)


def reconstruction_table(reconstruct: Content | None) -> Table | None:
    """One row a backend, then chance; columns without a feature network are named with what they need."""
    if not (reconstruct and reconstruct.get("rows")):
        return None
    columns = list(dict.fromkeys(name for row in reconstruct["rows"] for name in row["metrics"]))
    rows = [
        Row(
            [label(row["backend"]), *(metric(name, row["metrics"].get(name)) for name in columns)],
            _kind(row["backend"]),
        )
        for row in reconstruct["rows"]
    ]
    chances = reconstruct.get("chance", {})
    chance = [metric(name, chances.get(name, chances.get(name.split()[0]))) for name in columns]
    needs: dict[str, list[str]] = {}
    for row in reconstruct["rows"]:
        for column, reason in row.get("unavailable", {}).items():
            if column not in needs.setdefault(reason, []):
                needs[reason].append(column)
    notes = list(reconstruct.get("notes", []))
    if judge := reconstruct.get("judge"):
        notes.append(f"Two-way and top-1 identification by {judge['network']}.")
    if near := reconstruct.get("nearest training image"):
        notes.append(
            "Nearest training image of each test image (least, median, largest): "
            + "; ".join(f"{k} {', '.join(number(v[q]) for q in _SPREAD)}" for k, v in near.items())
            + f". Cosine by {reconstruct['target']}, the target."
        )
    if embedding := reconstruct.get("predicted embedding"):
        notes.append("Predicted image embedding: " + "; ".join(f"{k} {number(v)}" for k, v in embedding.items()) + ".")
    notes += [f"{', '.join(names)}: unavailable, {reason}." for reason, names in needs.items()]
    arrows = [f"{name} {'↓' if lower_is_better(name) else '↑'}" for name in columns]
    return Table(["backend", *arrows], {"": [*rows, Row(["chance", *chance], "chance")]}, notes)


def predictability_table(reconstruct: Content | None) -> Table | None:
    """How well each dimension of the target is predicted over the test images, by layer."""
    layers = (reconstruct or {}).get("predictability") or {}
    if not layers:
        return None
    columns = list(next(iter(layers.values())))
    rows = [
        Row([name, *(f"{of[c]:,}" if c == "dimensions" else number(of[c]) for c in columns)], "plain")
        for name, of in layers.items()
    ]
    notes = [
        "10 %, 50 %, 90 %: quantiles over dimensions of the correlation between predicted and true values. R²: share "
        "of the layer's variance that is explained. Predictions from averaged repeats."
    ]
    return Table(["layer of the target", *(c.replace("R2", "R²") for c in columns)], {"": rows}, notes)


def stages_table(results: Results) -> Table | None:
    """What was run and how long it took: stages.json, or else what the stages' own summaries tell."""
    if results.stages:
        rows = [
            [stage["stage"], stage["command"], duration(stage.get("seconds")), memory(stage.get("peak_memory_mb"))]
            for stage in results.stages
        ]
        times = [stage["seconds"] for stage in results.stages if stage.get("seconds") is not None]
        peaks = [stage["peak_memory_mb"] for stage in results.stages if stage.get("peak_memory_mb")]
        rows.append(["all", "", duration(sum(times)), memory(max(peaks, default=None))])
        return Table(["stage", "command", "time", "peak memory"], {"": [Row(row, "plain") for row in rows]})
    parts = {
        "pretrain": results.pretrain,
        "align": results.align,
        "evaluate": results.retrieval,
        "reconstruct": results.reconstruct,
    }
    rows = [[name, part.get("command", ""), duration(part.get("seconds"))] for name, part in parts.items() if part]
    return Table(["stage", "command", "time"], {"": [Row(row, "plain") for row in rows]}) if rows else None


def lower_is_better(name: str) -> bool:
    """Whether a metric of that name falls as results get better."""
    return name.startswith(("distance", "masked MSE"))


def metric(name: str, value: float | None) -> str:
    """A reconstruction metric as text: identification in percent, the others as they are."""
    return percent(value) if name.startswith(("two-way", "top-1")) else number(value)


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A fraction in percent with one decimal and a no-break space, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def interval(score: Mapping[str, float]) -> str:
    """A fraction with its interval, in percent."""
    return f"{percent(score['value'])} ({100 * score['low']:.0f}–{100 * score['high']:.0f})"


def duration(seconds: float | None) -> str:
    """Seconds as minutes and seconds, or a dash."""
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def memory(megabytes: float | None) -> str:
    """Memory in MB, or a dash."""
    return "–" if megabytes is None else f"{megabytes:,.0f} MB"


def _kind(name: str) -> str:
    return "model" if is_model(name) else "baseline"
