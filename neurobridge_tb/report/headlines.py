"""The report's headline cards: the figures that matter, each drawn to scale beside its baselines and chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurobridge_tb.report import report_tables as tables
from neurobridge_tb.report.result_names import is_baseline, is_ceiling, is_model, label, main_name
from neurobridge_tb.report.workspace import Results

Content = Mapping[str, Any]


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
    """A card for each of: retrieval top-1, two-way identification, PixCorr, masked prediction, as far as there are.

    A baseline never heads a card: where no model was run there is none.
    """
    cards = [
        _retrieval_card(results.retrieval),
        *_reconstruction_cards(results.reconstruct),
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
        low, high, value = rivals[best]["low"], rivals[best]["high"], scores[main]["value"]
        place = "above" if value > high else "below" if value < low else "within"
        bounds = f"{100 * low:.0f}–{100 * high:.0f}\N{NO-BREAK SPACE}%"
        verdict = f"{place} the 95\N{NO-BREAK SPACE}% interval of {best} ({bounds})"
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


def _masked_card(pretrain: Content | None) -> Card | None:
    if not (pretrain and pretrain.get("rows")):
        return None
    row = pretrain["rows"][0]
    values = {"model": row["model"], **row["baselines"]}
    verdict = _against_best(values, "model", lower=tables.lower_is_better(row["metric"]))
    title = f"Filling in what was masked ({row['scheme']}): {row['metric']}"
    return Card(
        title, tables.number(row["model"]), _bars(values, tables.number), verdict, bool(pretrain.get("simulated"))
    )


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
