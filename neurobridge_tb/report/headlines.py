"""The report's headline cards: the figures that matter, each drawn to scale beside its baselines and chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurobridge_tb.report import report_tables as tables
from neurobridge_tb.report.result_names import is_baseline, is_ceiling, is_model, label, main_name
from neurobridge_tb.report.runs import Run
from neurobridge_tb.report.workspace import Results

Content = Mapping[str, Any]
_MOST_TARGETS = 4  # of decoding, the newest


@dataclass(frozen=True)
class Bar:
    """A bar of a card: name, value as text, length in percent of the card's scale, "model", "baseline" or "chance"."""

    name: str
    text: str
    length: float
    kind: str


@dataclass(frozen=True)
class Card:
    """A headline figure with its bars and what the comparison says."""

    title: str
    value: str
    bars: list[Bar]
    verdict: str
    simulated: bool


def headlines(results: Results) -> list[Card]:
    """A card for each of: retrieval top-1, two-way identification, PixCorr, decoded targets, masked prediction.

    A baseline never heads a card: where no model was run there is none.
    """
    cards = [
        _retrieval_card(results.retrieval),
        *_reconstruction_cards(results.reconstruct),
        *_decoding_cards(results.runs),
        _masked_card(results.pretrain),
    ]
    return [card for card in cards if card is not None]


def _retrieval_card(retrieval: Content | None) -> Card | None:
    groups = tables.retrieval_groups(retrieval) if retrieval else {}
    rows = groups.get("neural to image, repeat average") or next(iter(groups.values()), [])
    if retrieval is None or not rows:
        return None
    scores = {row["model"]: row["top1"] for row in rows if "ceiling" not in row["model"]}
    main = main_name(scores)
    if not is_model(main):
        return None
    rivals = {name: score for name, score in scores.items() if is_baseline(name)}
    verdict = ""
    if rivals:
        best = max(rivals, key=lambda name: rivals[name]["value"])
        verdict = _against_interval(scores[main]["value"], best, rivals[best])
    values = {name: scores[name]["value"] for name in (main, *rivals)} | {"chance": retrieval["chance"]["top1"]}
    return Card(
        f"Seen image found among {retrieval['n_candidates']}",
        tables.percent(scores[main]["value"]),
        _bars(values, tables.percent),
        verdict,
        bool(retrieval.get("simulated")),
    )


def _reconstruction_cards(reconstruct: Content | None) -> list[Card]:
    if not (reconstruct and reconstruct.get("rows")):
        return []
    metrics = {row["backend"]: row["metrics"] for row in reconstruct["rows"]}
    main = main_name(metrics)
    if not is_model(main):
        return []
    circular = "" if reconstruct.get("judge", {}).get("independent", True) else ", by the target's own network"
    two_way = [name for name in metrics[main] if name.startswith("two-way")][-1:]
    cards = []
    for name in [*two_way, *(["PixCorr"] if "PixCorr" in metrics[main] else [])]:
        values = {backend: found[name] for backend, found in metrics.items() if name in found}
        values = {main: values.pop(main), **values}
        verdict = _against_best({k: v for k, v in values.items() if not is_ceiling(k)}, main)
        if name in two_way:
            values["chance"] = reconstruct.get("chance", {}).get("two-way", 0.5)
        title = (
            f"Two-way identification ({name.removeprefix('two-way ')}{circular})"
            if name in two_way
            else "Pixel correlation"
        )
        text = tables.metric(name, values[main])
        bars = _bars(values, lambda value, name=name: tables.metric(name, value))
        cards.append(Card(title, text, bars, verdict, bool(reconstruct.get("simulated"))))
    return cards


def _decoding_cards(runs: list[Run]) -> list[Card]:
    """A card for each of the newest targets: the first row, which is chosen before any is scored, beside counts."""
    of_target = {
        run.result["target"]: run.result
        for run in sorted(runs, key=lambda run: run.changed)
        if run.job == "decode" and "target" in run.result and run.result.get("rows")
    }
    cards = map(_decoding_card, list(of_target.values())[-_MOST_TARGETS:])
    return [card for card in cards if card is not None]


def _decoding_card(decoded: Content) -> Card | None:
    metric = "accuracy" if "accuracy" in decoded["rows"][0] else "R2"
    scores = {row["decoder"]: row[metric] for row in decoded["rows"] if isinstance(row.get(metric), Mapping)}
    if not scores:
        return None
    main, *others = scores
    counts = next((name for name in others if name.startswith("spike counts")), None)
    share = metric == "accuracy"
    verdict = ""
    if counts is not None:
        verdict = _against_interval(scores[main]["value"], counts, scores[counts], share=share)
    values = {name: scores[name]["value"] for name in (main, counts) if name is not None}
    if share and "chance" in decoded:
        values["chance"] = decoded["chance"]
    text = tables.percent if share else tables.number
    title = f"Decoding {decoded['target']}: {'accuracy' if share else 'R²'}"
    return Card(title, text(values[main]), _bars(values, text), verdict, bool(decoded.get("simulated")))


def _masked_card(pretrain: Content | None) -> Card | None:
    if not (pretrain and pretrain.get("rows")):
        return None
    row = next((row for row in pretrain["rows"] if row["scheme"] == "neuron"), pretrain["rows"][0])
    values = {"model": row["model"], **row["baselines"]}
    verdict = _against_best(values, "model", lower=tables.lower_is_better(row["metric"]))
    title = f"Filling in what was masked ({row['scheme']}): {row['metric']}"
    return Card(
        title, tables.number(row["model"]), _bars(values, tables.number), verdict, bool(pretrain.get("simulated"))
    )


def _against_interval(value: float, rival: str, score: Mapping[str, float], *, share: bool = True) -> str:
    low, high = score["low"], score["high"]
    place = "above" if value > high else "below" if value < low else "within"
    bounds = f"{100 * low:.0f}–{100 * high:.0f}\N{NO-BREAK SPACE}%" if share else f"{low:.2f}–{high:.2f}"
    return f"{place} the 95\N{NO-BREAK SPACE}% interval of {rival} ({bounds})"


def _against_best(values: Mapping[str, float], main: str, *, lower: bool = False) -> str:
    rivals = {name: value for name, value in values.items() if name != main}
    if not rivals:
        return ""
    best = (min if lower else max)(rivals, key=lambda name: rivals[name])
    better = values[main] < rivals[best] if lower else values[main] > rivals[best]
    direction = "lower is better" if lower else "higher is better"
    return f"{'better' if better else 'not better'} than the best baseline, {label(best)} ({direction})"


def _bars(values: Mapping[str, float], text: Any) -> list[Bar]:
    """Bars to one scale from 0; the first value is the model's."""
    top = max(*values.values(), 1e-9)
    kinds = ["model", *("chance" if name == "chance" else "baseline" for name in list(values)[1:])]
    return [
        Bar(label(name), text(value), 100 * max(value, 0.0) / top, kind)
        for (name, value), kind in zip(values.items(), kinds, strict=True)
    ]
