"""Cutting a recording into training, validation and test: blocks of time with gaps between them, or rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError

SPLITS = ("train", "valid", "test")
_GROUP = 10  # blocks or rows that follow one another and are dealt together, so that splits spread over the recording

Bounds = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


@dataclass(frozen=True)
class SplitPlan:
    """How a recording is cut.

    Attributes:
        by: ``"blocks"`` of time, or the name of a table whose rows are dealt.
        shares: Of training, validation and test.
        gap: Time in s left out between blocks of different splits.
        block: Length of a block in s. Default: a fiftieth of the recording, but 10 to 120 s, and ten blocks at least.
        seed: Which blocks or rows go where.

    Raises:
        InputError: No such shares, gap or blocks.
    """

    by: str = "blocks"
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    gap: float = 1.0
    block: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        sound = all(share >= 0 for share in self.shares) and 0 < self.shares[0] and sum(self.shares) < np.inf
        if not (sound and 0 <= self.gap < np.inf and (self.block is None or 0 < self.block < np.inf)):
            raise InputError(
                expected="shares of 0 or more, some for training, a gap of 0 s or more, and blocks longer than 0 s",
                found=f"shares {self.shares}, gap {self.gap:g}, block {self.block}",
                fix="Correct --shares, --gap or --block.",
            )


def block_splits(start: float, end: float, plan: SplitPlan, rows: NDArray[np.float64] | None = None) -> Bounds:
    """Blocks of time, dealt among the splits so that each spreads over the whole recording.

    Args:
        start: Of the recording in s.
        end: Of the recording in s.
        plan: How.
        rows: (n, 2) intervals in s, e.g. trials. A border that would cut one that is shorter than a block moves to
            where none goes on.

    Returns:
        Starts and ends in s of each split.

    Raises:
        InputError: The recording is too short for the gaps.
    """
    length = plan.block or min(float(np.clip((end - start) / 50, 10, 120)), (end - start) / _GROUP)
    borders = np.linspace(start, end, max(2, round((end - start) / length) + 1))
    if rows is not None and len(rows):
        short = rows[np.ptp(rows, axis=1) < length]
        inner = [_free_time(border, short, plan.gap, length / 2) for border in borders[1:-1]]
        borders = np.unique(np.concatenate([[start], np.clip(inner, start, end), [end]]))
    dealt = deal(len(borders) - 1, plan)
    splits: dict[str, list[tuple[float, float]]] = {name: [] for name in SPLITS}
    last: str | None = None
    for name, low, high in zip(dealt, borders[:-1], borders[1:], strict=True):
        if name == last:
            splits[name][-1] = splits[name][-1][0], float(high)
        else:
            splits[name].append((float(low) + (plan.gap if last else 0.0), float(high)))
        last = name
    kept = {name: np.array([(a, b) for a, b in blocks if a < b]) for name, blocks in splits.items()}
    empty = [name for name, share in zip(SPLITS, plan.shares, strict=True) if share and not len(kept[name])]
    if empty:
        raise InputError(
            expected=f"blocks of time for {', '.join(empty)}",
            found=f"{end - start:g} s in {len(borders) - 1} blocks, with gaps of {plan.gap:g} s",
            fix="Choose a smaller gap or shorter blocks.",
        )
    return {name: (bounds[:, 0], bounds[:, 1]) for name, bounds in kept.items() if len(bounds)}


def row_splits(
    starts: NDArray[np.float64], ends: NDArray[np.float64], plan: SplitPlan, labels: Sequence[str] | None = None
) -> Bounds:
    """Rows of a table, each of which is an interval of its own.

    Args:
        starts: (n,) in s, in order.
        ends: (n,) in s.
        plan: How.
        labels: (n,) rows of one label are dealt among themselves, so that each split has its share of them.

    Raises:
        InputError: Rows that overlap.
    """
    if (starts[1:] < ends[:-1] - 1e-6).any():
        raise InputError(
            expected=f"rows of '{plan.by}' that do not overlap, to be dealt among the splits",
            found=f"the row at {starts[1:][starts[1:] < ends[:-1] - 1e-6][0]:g} s begins before the last one ends",
            fix="Split in blocks.",
        )
    names = np.zeros(len(starts), dtype="U8")
    of_rows = np.zeros(len(starts)) if labels is None else np.asarray(labels)
    for position, label in enumerate(np.unique(of_rows)):
        at = np.flatnonzero(of_rows == label)
        names[at] = deal(len(at), plan, offset=position)
    return {name: (starts[names == name], ends[names == name]) for name in SPLITS if (names == name).any()}


def deal(n: int, plan: SplitPlan, offset: int = 0) -> list[str]:
    """A split for each of n things in a row; any ten in a row are shared about as the plan says."""
    generator = np.random.default_rng((plan.seed, offset))
    shares = np.asarray(plan.shares) / sum(plan.shares)
    group = min(_GROUP, n) if n else 1
    counts = np.floor(shares * group + 1e-9).astype(int)
    counts = np.where((shares > 0) & (counts == 0) & (group >= len(SPLITS)), 1, counts)
    counts[0] += group - counts.sum()
    names = np.repeat(SPLITS, counts)
    return [str(name) for _ in range(-(-n // group)) for name in generator.permutation(names)][:n]


def _free_time(border: float, rows: NDArray[np.float64], gap: float, reach: float) -> float:
    """The border, or where it or the gap after it would cut a row, the nearest end of a row with no other going on.

    Where rows of several tables leave no such time within ``reach``, the border stays, and rows are cut.
    """
    if not ((rows[:, 0] < border + gap) & (border < rows[:, 1])).any():
        return border
    rows = rows[np.argsort(rows[:, 0])]
    ended = np.maximum.accumulate(rows[:, 1])
    free = ended[ended <= np.append(rows[1:, 0], np.inf) + 1e-6]
    nearest = float(free[np.abs(free - border).argmin()])
    return nearest if abs(nearest - border) <= reach else border
