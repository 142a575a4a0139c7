"""Masking schemes: which (bin, unit) cells of a window the encoder sees, and which are its targets.

Each scheme draws from a window of ``n_bins`` bins and ``len(areas)`` units, and returns two boolean arrays of shape
(T, N): ``keep`` (seen by the encoder) and ``target`` (to be predicted). A masked cell is absent from the input; it is
neither zero nor a placeholder, because an absent token is not a silent unit.

The neuron, causal, intra- and inter-region schemes follow Zhang et al. 2024, "Towards a universal translator for neural
dynamics at single-cell, single-spike resolution" (MtM, arXiv:2407.14668).
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError

BoolGrid = NDArray[np.bool_]
# Units of each named area, of arrays that are the same ones in all windows of a recording
_COUNTED: dict[int, tuple[weakref.ref, list[tuple[str, int]]]] = {}
_MOST_COUNTED = 1024
UNNAMED = ("", "root")  # areas that say nothing: unknown, and the root of Allen's ontology


@dataclass(frozen=True)
class Mask:
    """One drawn mask.

    Attributes:
        scheme: Name of the scheme that drew it.
        keep: (T, N) cells that the encoder sees.
        target: (T, N) cells that the decoder predicts.
    """

    scheme: str
    keep: BoolGrid
    target: BoolGrid


def _masked_share(rng: np.random.Generator, n: int, ratio: float) -> NDArray[np.intp]:
    """Indices of about ``ratio * n`` of n things: at least one, and at least one is left."""
    return rng.choice(n, size=_rounded_share(n, ratio), replace=False)


def _rounded_share(n: int, ratio: float) -> int:
    """About ``ratio * n`` of n things: at least one, and at least one is left."""
    return min(max(round(ratio * n), 1), n - 1)


def _named_areas(areas: NDArray[np.str_], at_least: int) -> list[str]:
    known = _COUNTED.get(id(areas))
    if known is None or known[0]() is not areas:
        names, counts = np.unique(areas, return_counts=True)
        named = [(name, n) for name, n in zip(names.tolist(), counts.tolist(), strict=True) if name not in UNNAMED]
        if len(_COUNTED) >= _MOST_COUNTED:
            _COUNTED.clear()
        known = _COUNTED[id(areas)] = weakref.ref(areas), named
    return [name for name, count in known[1] if count >= at_least]


def temporal(rng: np.random.Generator, n_bins: int, areas: NDArray, ratio: float = 0.3) -> tuple:
    """Whole bins, in contiguous spans of random length: those bins are the targets, of all units."""
    masked = np.zeros(n_bins, dtype=bool)
    left = n_masked = _rounded_share(n_bins, ratio)
    while left > 0:
        length = int(rng.integers(1, left + 1))
        start = int(rng.integers(0, n_bins - length + 1))
        masked[start : start + length] = True
        left = n_masked - int(masked.sum())
    target = np.repeat(masked[:, None], len(areas), axis=1)
    return ~target, target


def causal(rng: np.random.Generator, n_bins: int, areas: NDArray) -> tuple:
    """Everything after a cut: the last 10-60 % of the bins are the targets."""
    n_masked = _rounded_share(n_bins, rng.uniform(0.1, 0.6))
    target = np.zeros((n_bins, len(areas)), dtype=bool)
    target[n_bins - n_masked :] = True
    return ~target, target


def neuron(rng: np.random.Generator, n_bins: int, areas: NDArray) -> tuple:
    """Whole units (co-smoothing): 10-50 % of the units are the targets, in all bins."""
    target = np.zeros((n_bins, len(areas)), dtype=bool)
    target[:, _masked_share(rng, len(areas), rng.uniform(0.1, 0.5))] = True
    return ~target, target


def intra_region(rng: np.random.Generator, n_bins: int, areas: NDArray) -> tuple:
    """30-75 % of the units of one area are the targets, from the other units of that area alone."""
    members = np.flatnonzero(areas == rng.choice(_named_areas(areas, at_least=2)))
    masked = members[_masked_share(rng, len(members), rng.uniform(0.3, 0.75))]
    keep, target = (np.zeros((n_bins, len(areas)), dtype=bool) for _ in range(2))
    keep[:, members] = True
    keep[:, masked] = False
    target[:, masked] = True
    return keep, target


def inter_region(rng: np.random.Generator, n_bins: int, areas: NDArray) -> tuple:
    """One whole area is the target, from the others."""
    members = areas == rng.choice(_named_areas(areas, at_least=1))
    target = np.repeat(members[None, :], n_bins, axis=0)
    return ~target, target


def random(rng: np.random.Generator, n_bins: int, areas: NDArray, ratio: float = 0.3) -> tuple:
    """Single (bin, unit) cells."""
    cells = np.zeros(n_bins * len(areas), dtype=bool)
    cells[_masked_share(rng, cells.size, ratio)] = True
    target = cells.reshape(n_bins, len(areas))
    return ~target, target


SCHEMES: dict[str, Callable[..., tuple]] = {
    "temporal": temporal,
    "causal": causal,
    "neuron": neuron,
    "intra_region": intra_region,
    "inter_region": inter_region,
    "random": random,
}


def is_possible(scheme: str, n_bins: int, areas: NDArray) -> bool:
    """Whether a window can be masked so: time needs two bins, units two, regions named areas."""
    if scheme in ("temporal", "causal"):
        return n_bins >= 2
    if scheme == "intra_region":
        return bool(_named_areas(areas, at_least=2))
    if scheme == "inter_region":
        return len(_named_areas(areas, at_least=1)) >= 2
    return n_bins * len(areas) >= 2 if scheme == "random" else len(areas) >= 2


def draw_mask(weights: dict[str, float], rng: np.random.Generator, n_bins: int, areas: NDArray[np.str_]) -> Mask:
    """Draw one scheme by weight among those possible for this window, and a mask by it.

    Args:
        weights: Relative weight of each scheme, e.g. ``{"neuron": 1, "temporal": 1}``.
        rng: Source of all randomness.
        n_bins: Bins of the window, T.
        areas: (N,) brain area of each unit, "" or "root" where unknown.

    Raises:
        InputError: A scheme is unknown, or none is possible for this window.
    """
    if unknown := sorted(set(weights) - set(SCHEMES)):
        raise InputError(
            expected=f"masking schemes among {', '.join(SCHEMES)}",
            found=", ".join(unknown),
            fix="Correct the name under `masking` in the config.",
        )
    possible = {s: w for s, w in weights.items() if w > 0 and is_possible(s, n_bins, areas)}
    if not possible:
        raise InputError(
            expected="at least one masking scheme that suits the window",
            found=f"{n_bins} bin(s), {len(areas)} unit(s), {len(_named_areas(areas, 1))} named area(s), "
            f"and the schemes {', '.join(weights)}",
            fix="Temporal and causal masks need two bins, neuron masks two units, regional masks named areas: "
            "choose other schemes under `masking`, or a longer window.",
        )
    names, shares = list(possible), np.array(list(possible.values()), dtype=float)
    scheme = names[rng.choice(len(names), p=shares / shares.sum())]
    keep, target = SCHEMES[scheme](rng, n_bins, areas)
    return Mask(scheme, keep, target)
