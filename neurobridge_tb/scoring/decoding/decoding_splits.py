"""Decoding of rows of a table: which rows train and which test, and every decoder's predictions of the latter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.arrays import Floats
from neurobridge_tb.data.targets import Examples
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.linear_decoders import fit_logistic, fit_value_ridge
from neurobridge_tb.estimators.model_choice import least_loss
from neurobridge_tb.metrics.decoded_scores import class_scores, interval_of_difference, value_scores

_LEAST = 1e-9  # probability that a decoder gives to a class at least
_STEPS = 2  # of the weights of pooled decoders
_BLOCKED = 0.3  # so much more often than by chance is the next row of the same class

Parts = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class Decoded:
    """What a decoder says of the test rows.

    Attributes:
        rows: (m,) index of each test row among the examples.
        classes: (C,) names of classes, sorted; empty for values.
        outputs: (m, C) probabilities, or (m,) values.
        held_out: Of each part, the same of its training rows, by decoders fitted to others of them.
        made_of: Of each part, names of the decoders that were pooled.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.str_]
    outputs: Floats
    held_out: tuple[Floats, ...] = ()
    made_of: tuple[tuple[str, ...], ...] = ()

    def scores(self, examples: Examples, seed: int) -> dict[str, Any]:
        """As :func:`class_scores` or :func:`value_scores` give them."""
        true = examples.label[self.rows]
        if examples.are_classes:
            return class_scores(self.outputs, true, self.classes, seed=seed)
        return value_scores(self.outputs, true, seed=seed)

    def quality(self, examples: Examples) -> Floats:
        """(m,) 1 for a right class and 0 for a wrong one, or minus the squared error."""
        true = examples.label[self.rows]
        if examples.are_classes:
            return (self.classes[self.outputs.argmax(1)] == true).astype(np.float64)
        return -((self.outputs - true) ** 2)


def split_rows(
    examples: Examples, *, folds: int, seed: int, train_on: str | None = None, test_on: str | None = None
) -> Parts:
    """Training and test rows of each fit, as indices.

    Args:
        examples: The rows.
        folds: Each row tests once, and the rows of the other folds train; recordings are decoded one by one. 0: the
            recordings' own splits, training and validation against test.
        seed: Of the folds.
        train_on: Only rows of this condition train, see :meth:`Examples.where`; in one fit, without folds.
        test_on: Only rows of this condition test. Default: all that do not train.

    Raises:
        InputError: No rows to train or to test, or rows of one class only.
    """
    if train_on or test_on:
        tests = examples.where(test_on) if test_on else ~examples.where(str(train_on))
        trains = (examples.where(train_on) if train_on else ~tests) & ~tests
        parts = [(np.flatnonzero(trains), np.flatnonzero(tests))]
    elif folds == 0:
        trains, tests = np.isin(examples.split, ["train", "valid"]), examples.split == "test"
        groups = [examples.recording == recording for recording in np.unique(examples.recording)]
        parts = [(np.flatnonzero(trains & group), np.flatnonzero(tests & group)) for group in groups]
    else:
        parts = [
            part for recording in np.unique(examples.recording) for part in _folds(examples, recording, folds, seed)
        ]
    for train, test in parts:
        _check(examples, train, test)
    return parts


def _folds(
    examples: Examples, recording: str, folds: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    rows = np.flatnonzero(examples.recording == recording)
    labels = examples.label[rows]
    kind = StratifiedKFold if examples.are_classes else KFold
    fewest = np.unique(labels, return_counts=True)[1].min() if examples.are_classes else len(rows)
    if min(fewest, len(rows)) < 2:
        raise InputError(
            expected=f"at least two rows of each class in {recording}",
            found=f"{fewest}",
            fix="Decode recordings that hold all classes: dataset.recording_ids=[…].",
        )
    for train, test in kind(min(folds, int(fewest)), shuffle=True, random_state=seed).split(rows, labels):
        yield rows[train], rows[test]


def _check(examples: Examples, train: NDArray, test: NDArray) -> None:
    """A class that is only in the test rows cannot be decoded; rows of one class tell the splits, not the activity."""
    of_train, of_test = np.unique(examples.label[train]), np.unique(examples.label[test])
    shared = np.intersect1d(of_train, of_test) if examples.are_classes else of_test
    if len(of_train) < 2 or len(of_test) < 2 or len(shared) < 2:
        found = f"{len(train)} training rows ({_listed(of_train)}), {len(test)} test rows ({_listed(of_test)})"
        raise InputError(
            expected="training and test rows with at least two classes or values in common",
            found=found,
            fix="The target is constant within the splits: use folds=5, or split by the table's rows on import.",
        )


def _listed(labels: NDArray) -> str:
    return ", ".join(map(str, labels[:5])) + (" …" if len(labels) > 5 else "") if len(labels) else "none"


def come_in_blocks(examples: Examples) -> bool:
    """Whether rows of one class follow one another, so that slow drift tells the class to rows of other folds."""
    if not examples.are_classes or len(examples) < 20:
        return False
    shares = np.unique(examples.label, return_counts=True)[1] / len(examples)
    return (examples.label[1:] == examples.label[:-1]).mean() > (shares**2).sum() + _BLOCKED


def decode(features: Floats, examples: Examples, parts: Parts, *, seed: int = 0) -> Decoded:
    """Fit on the training rows of each part, and decode its test rows.

    Args:
        features: (n, d).
        examples: n rows.
        parts: From :func:`split_rows`.
        seed: Of the folds within the training rows that choose the penalty.
    """
    tested = np.concatenate([test for _, test in parts])
    classes = np.unique(examples.label) if examples.are_classes else np.array([], dtype=str)
    outputs, held_out = [], []
    for train, test in parts:
        if examples.are_classes:
            fitted = fit_logistic(features[train], examples.label[train], seed=seed)
            of_test, of_train = fitted.probabilities(features[test]), fitted.held_out
            outputs.append(_of_all(classes, fitted.classes, of_test))
            held_out.append(_of_all(classes, fitted.classes, of_train))
        else:
            ridge = fit_value_ridge(features[train], examples.label[train], seed=seed)
            outputs.append(ridge.predict(features[test]))
            held_out.append(ridge.held_out)
    return Decoded(tested, classes, np.concatenate(outputs), tuple(held_out))


def _of_all(classes: NDArray[np.str_], own: NDArray[np.str_], probabilities: Floats) -> Floats:
    """Probabilities of all classes, 0 for those that a decoder does not know."""
    full = np.zeros((len(probabilities), len(classes)))
    full[:, np.searchsorted(classes, own)] = probabilities
    return full


def pooled(decoders: dict[str, Decoded], examples: Examples, parts: Parts, *, simplest: str) -> Decoded:
    """Several decoders of the same rows as one: the weighted geometric mean of probabilities, or mean of values.

    The weights, in steps of a half, are those of least log-loss or squared error on the training rows of a part,
    held out in turn (stacking, Wolpert 1992); in doubt the simplest decoder stays alone
    (:func:`~neurobridge_tb.estimators.model_choice.least_loss`).

    Args:
        decoders: By name.
        examples: The rows.
        parts: From :func:`split_rows`.
        simplest: Name of the decoder that stays in case of doubt.
    """
    outputs, made_of, first, shares = [], [], 0, _shares(len(decoders))
    alone = tuple(float(name == simplest) for name in decoders)
    for part, (train, test) in enumerate(parts):
        held_out = [decoder.held_out[part] for decoder in decoders.values()]
        classes = decoders[simplest].classes
        losses = {weights: _losses(_mixed(held_out, weights), examples.label[train], classes) for weights in shares}
        chosen = least_loss(losses, simplest=alone)
        outputs.append(_mixed([decoder.outputs[first : first + len(test)] for decoder in decoders.values()], chosen))
        made_of.append(tuple(name for name, weight in zip(decoders, chosen, strict=True) if weight))
        first += len(test)
    return replace(decoders[simplest], outputs=np.concatenate(outputs), held_out=(), made_of=tuple(made_of))


def _losses(outputs: Floats, label: NDArray, classes: NDArray[np.str_]) -> Floats:
    """(n,) negative log-probability of each row's class, or squared error."""
    if not len(classes):
        return (outputs - label) ** 2
    return -np.log(np.maximum(outputs[np.arange(len(label)), np.searchsorted(classes, label)], _LEAST))


def _shares(count: int) -> list[tuple[float, ...]]:
    """Weights that add up to 1, in steps of a half."""
    steps = product(range(_STEPS + 1), repeat=count)
    return [tuple(k / _STEPS for k in ks) for ks in steps if sum(ks) == _STEPS]


def _mixed(outputs: Sequence[Floats], weights: Sequence[float]) -> Floats:
    if outputs[0].ndim == 1:
        return np.sum([weight * values for weight, values in zip(weights, outputs, strict=True)], axis=0)
    logs = [weight * np.log(np.maximum(p, _LEAST)) for weight, p in zip(weights, outputs, strict=True)]
    mean = np.exp(np.sum(logs, axis=0))
    return mean / mean.sum(1, keepdims=True)


def table_rows(decoded: dict[str, Decoded], examples: Examples, seed: int) -> list[dict[str, Any]]:
    """A row for each decoder, which says whether it is the best, or apart from it by the interval of the difference."""
    quality = {name: its.quality(examples) for name, its in decoded.items()}
    best = max(quality, key=lambda name: quality[name].mean())
    rows = []
    for name, its in decoded.items():
        low, _ = interval_of_difference(quality[best], quality[name], seed=seed)
        verdict = "best" if name == best else "below" if low > 0 else "not apart"
        rows.append({"decoder": name, **its.scores(examples, seed), "verdict": verdict})
    return rows
