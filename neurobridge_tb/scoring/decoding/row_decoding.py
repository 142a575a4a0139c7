"""Decoding a column of a table: whole windows, time courses and single areas, beside counts and random weights."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.configs.decode import DecodeConfig
from neurobridge_tb.data.row_features import (
    bins_fit,
    count_features,
    factor_features,
    latent_features,
    quarter_features,
    row_windows,
)
from neurobridge_tb.data.targets import Examples, read_examples
from neurobridge_tb.datasets.provenance import is_pseudo_population
from neurobridge_tb.devices import place
from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.decoded_scores import confusion
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.progress import say
from neurobridge_tb.scoring.decoding.decoding_splits import (
    Decoded,
    come_in_blocks,
    decode,
    pooled,
    split_rows,
    table_rows,
)
from neurobridge_tb.scoring.decoding.row_networks import decode_fine_tuned, decode_gru

LATENTS, FACTORS, COUNTS, POOLED = "latents", "factors", "spike counts", "latents, factors and counts"
QUARTERS = "spike counts in quarters"
RANDOM, FINE_TUNED, GRU = "latents of random weights", "fine-tuned", "GRU"
_FEWEST_UNITS = 2  # of an area that is decoded by itself


def decode_column(config: DecodeConfig, dataset: Dataset, model: NeuroBridgeModel) -> dict[str, Any]:
    """Content of ``metrics.json``: rows of the table, and what the figures show.

    Args:
        config: Settings.
        dataset: The recordings.
        model: The encoder.
    """
    examples = read_examples(dataset, config.target, kind=config.kind, align=config.align)
    examples, bounds = row_windows(dataset, examples, config.window)
    _check(config, float(np.ptp(bounds[0])))
    parts = split_rows(examples, folds=config.folds, seed=config.seed, train_on=config.train_on, test_on=config.test_on)
    untrained = place(random_weights(model, dataset, config.seed), config)
    crosses = any(set(examples.recording[train]) != set(examples.recording[test]) for train, test in parts)

    def decoded(
        bounds: NDArray, units: dict[str, NDArray] | None = None, *, single: bool = False
    ) -> dict[str, Decoded]:
        """What is decoded from windows, of all units or some: pooled and from counts; with ``single`` by each alone."""

        def gather(read: Callable[[str, NDArray], NDArray], apart: bool = False) -> NDArray[np.float64]:
            return _gather(examples, bounds, read, apart=apart)

        def by(features: NDArray[np.float64]) -> Decoded:
            return decode(features, examples, parts, seed=config.seed)

        frozen = gather(lambda r, b: latent_features(model, dataset, r, b, _of(units, r)))
        made = {LATENTS: by(frozen)}
        if not crosses:  # units of one recording say nothing about those of another
            if model.has_factors:
                made[FACTORS] = by(
                    gather(lambda r, b: factor_features(model, dataset, r, b, _of(units, r)), apart=True)
                )
            made[COUNTS] = by(gather(lambda r, b: count_features(dataset, r, b, _of(units, r)), apart=True))
            if single and bins_fit(dataset, float(np.ptp(bounds[0])) / 4):
                made[QUARTERS] = by(gather(lambda r, b: quarter_features(dataset, r, b), apart=True))
            both = {POOLED: pooled(made, examples, parts, simplest=COUNTS), COUNTS: made.pop(COUNTS)}
            made = both | made if single else both
        if single:
            made[RANDOM] = by(gather(lambda r, b: latent_features(untrained, dataset, r, b, _of(units, r))))
        if single and config.networks:
            say("Training the encoder and a GRU on the labels")
            given = (model, dataset, examples, bounds, parts)
            made[FINE_TUNED] = decode_fine_tuned(*given, frozen, seed=config.seed)
            if len(dataset.recording_ids) == 1:
                made[GRU] = decode_gru(*given, seed=config.seed)
        return made

    say(f"Reading {len(examples)} windows of {np.ptp(bounds[0]):g} s")
    whole = decoded(bounds, single=True)
    content: dict[str, Any] = {
        "examples": len(examples),
        "kind": "classes" if examples.are_classes else "values",
        "window": [float(x) for x in bounds[0] - examples.time[0]],
        "notes": _notes(config, dataset, examples, crosses, whole),
        "rows": table_rows(whole, examples, config.seed),
    }
    if examples.are_classes:
        content |= _of_classes(whole, examples)
        content["notes"].append(f"Chance: {content['chance']:.3f}, the share of the commonest class.")
    if config.bins:
        say(f"Time course in bins of {config.bins:g} s")
        content["time course"] = _time_course(config, examples, bounds, decoded)
    areas = {r: _areas(dataset, r) for r in dataset.recording_ids}
    names = sorted(set().union(*areas.values()))
    if config.areas and len(names) > 1:
        say("Single areas")
        content["areas"] = {}
        for name in names:
            units = {r: of_area.get(name, np.array([], dtype=int)) for r, of_area in areas.items()}
            if min(map(len, units.values())) >= _FEWEST_UNITS:
                its = decoded(bounds, units)
                content["areas"][name] = {row: d.scores(examples, config.seed) for row, d in its.items()}
    return content


def _check(config: DecodeConfig, length: float) -> None:
    """Refuse folds and bins that cannot be, of windows of a length in s."""
    if config.folds < 0 or config.folds == 1:
        raise InputError(
            expected="folds=0, the recordings' own splits, or at least 2", found=f"{config.folds}", fix="Correct folds."
        )
    if config.bins is not None and not 0 < config.bins <= length + 1e-6:
        raise InputError(
            expected=f"bins above 0 s and at most as long as the window, {length:g} s",
            found=f"{config.bins:g}",
            fix="Correct bins or window.",
        )


def random_weights(model: NeuroBridgeModel, dataset: Dataset, seed: int) -> NeuroBridgeModel:
    """The same encoder before any training."""
    torch.manual_seed(seed)
    untrained = NeuroBridgeModel(**model.config).eval()
    untrained.init_vocabs(dataset)
    untrained.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    return untrained


def _gather(
    examples: Examples, bounds: NDArray, read: Callable[[str, NDArray], NDArray], *, apart: bool = False
) -> NDArray[np.float64]:
    """Features (n, d) of all rows; with ``apart`` each recording has columns of its own, 0 elsewhere."""
    recordings = list(dict.fromkeys(examples.recording.tolist()))
    blocks = [read(recording, bounds[examples.recording == recording]) for recording in recordings]
    ends = np.cumsum([block.shape[1] for block in blocks]) if apart else np.full(len(blocks), blocks[0].shape[1])
    features = np.zeros((len(examples), ends[-1]))
    for recording, block, end in zip(recordings, blocks, ends, strict=True):
        features[examples.recording == recording, end - block.shape[1] : end] = block
    return features


def _of(units: dict[str, NDArray] | None, recording: str) -> NDArray | None:
    return None if units is None else units[recording]


def _areas(dataset: Dataset, recording_id: str) -> dict[str, NDArray[np.int64]]:
    units = dataset.get_recording(recording_id).units
    if "area" not in units.keys():
        return {}
    areas = units.area.astype(str)
    return {str(name): np.flatnonzero(areas == name) for name in np.unique(areas) if name}


def _of_classes(decoded: dict[str, Decoded], examples: Examples) -> dict[str, Any]:
    labels = examples.label[next(iter(decoded.values())).rows]
    names, counts = np.unique(labels, return_counts=True)
    return {
        "classes": names.tolist(),
        "chance": float(counts.max() / counts.sum()),
        "confusion": {
            name: confusion(its.classes[its.outputs.argmax(1)], labels, its.classes).tolist()
            for name, its in decoded.items()
            if name in (POOLED, LATENTS, COUNTS)
        },
    }


def _time_course(
    config: DecodeConfig, examples: Examples, bounds: NDArray, decoded: Callable[[NDArray], dict[str, Decoded]]
) -> dict[str, Any]:
    """Scores in each bin of the window; a bin's decoder sees that bin alone."""
    first, last = bounds[0] - examples.time[0]
    assert config.bins
    edges = first + config.bins * np.arange(int(np.floor((last - first) / config.bins + 1e-6)) + 1)
    rows: dict[str, list[dict[str, float]]] = {}
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        of_bin = examples.time[:, None] + [low, high]
        for name, its in decoded(of_bin).items():
            scores = its.scores(examples, config.seed)
            rows.setdefault(name, []).append(scores["accuracy" if examples.are_classes else "R2"])
    return {"times": ((edges[:-1] + edges[1:]) / 2).tolist(), "rows": rows}


def _notes(
    config: DecodeConfig, dataset: Dataset, examples: Examples, crosses: bool, decoded: dict[str, Decoded]
) -> list[str]:
    notes = [f"left out {line}" for line in examples.dropped]
    if config.folds and not (config.train_on or config.test_on):
        seen = np.isin(examples.split, ["train"]).sum()
        notes.append(
            f"{config.folds} folds: each row is decoded once, by a decoder that was fitted to other rows. Pretraining "
            f"has seen the activity, not the labels, of the {seen} of {len(examples)} rows in the training split."
        )
    if come_in_blocks(examples) and not is_pseudo_population(dataset):
        notes.append(
            "Rows of one class follow one another: slow drift of the activity may tell it. Compare with folds=0."
        )
    if POOLED in decoded:
        pools = Counter(" with ".join(names) for names in decoded[POOLED].made_of)
        listed = ", ".join(f"{names} in {count}" for names, count in pools.most_common())
        notes.append(f"{POOLED}, as training rows chose in {pools.total()} fits: {listed}.")
    if crosses:
        notes.append("Counts are left out: the recordings have different units.")
    return notes
