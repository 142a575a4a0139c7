"""Times that are probably no seconds, and counts that are probably no counts.

What is found are signs, not proofs: the builder and ``neurobridge validate`` point them out.
"""

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.datasets.containment import lie_within
from neurobridge_tb.datasets.validation.contents import Fault

SCANNED_BINS = 20_000  # the first bins tell enough
_LEAST_SPIKES = 20  # fewer tell nothing
_LEAST_RATE = 0.1  # Hz, of the most active unit
_LONGEST_SILENCE = 0.3  # of the recording
_MOST_EMPTY, _EXPECTED_EMPTY = 0.8, 0.3  # of all seconds; at constant rates
_MOST_RATE = 1000.0  # Hz, mean of a unit: one spike a refractory period
_WIDEST_BIN = 5.0  # s
_SMOOTH_SHARE = 0.25  # of the units
_LEAST_COVER = 0.02  # of the recording, by all splits


def spike_time_faults(
    *,
    all_whole: bool,
    spikes_per_unit: NDArray[np.int64],
    before: NDArray[np.int64],
    seconds: float,
    splits: dict[str, NDArray[np.float64]],
    start: float = 0.0,
) -> list[Fault]:
    """Signs that spike times are sample numbers or milliseconds, that a stray spike stretches the recording, or that a
    split has no spikes.

    Args:
        all_whole: Whether all spike times are whole numbers.
        spikes_per_unit: (N,).
        before: Number of spikes before each whole second from ``start`` on.
        seconds: Length of the recording.
        splits: Names of splits to their intervals in s, (n, 2).
        start: Start of the recording in s.
    """
    total = int(spikes_per_unit.sum())
    faults: list[Fault] = []
    if total < _LEAST_SPIKES or not seconds > 0:
        return faults
    seconds_fix = "Divide sample numbers by the sampling rate, milliseconds by 1,000: times are seconds."
    if all_whole:
        found = f"all {total:,} times are whole numbers, as sample numbers or milliseconds are"
        return [Fault("spikes/timestamps", found, seconds_fix)]
    rate = spikes_per_unit.max() / seconds
    if rate < _LEAST_RATE:
        found = f"no unit fires at more than {rate:.2g} Hz over {seconds:,.0f} s"
        faults.append(Fault("spikes/timestamps", found, seconds_fix, is_error=False))
    if rate > _MOST_RATE:
        found, fix = f"a unit of {rate:,.0f} spikes/s on average", "Multiply minutes by 60, hours by 3,600."
        faults.append(Fault("spikes/timestamps", found, fix, is_error=False))
    silence, since = _longest_silence(before, total, seconds)
    if silence > max(10.0, _LONGEST_SILENCE * seconds):
        found = f"no spike from {start + since:,.0f} to {start + since + silence:,.0f} s, {silence / seconds:.0%} of it"
        faults.append(Fault("spikes/timestamps", found, _STRETCHED_FIX, is_error=False))
    elif (empty := _empty_share(before, total, seconds)) > _MOST_EMPTY and np.exp(-total / seconds) < _EXPECTED_EMPTY:
        found = f"no spike in {empty:.0%} of all seconds, though there are {total / seconds:.2g} a second on average"
        faults.append(Fault("spikes/timestamps", found, _STRETCHED_FIX, is_error=False))
    for name, bounds in splits.items():
        if len(bounds) and not _spikes_within(before, total, bounds - start):
            faults.append(Fault(f"{name}_domain", "no spike in it", _SPLITS_FIX, is_error=name == "train"))
    return faults


def _empty_share(before: NDArray[np.int64], total: int, seconds: float) -> float:
    """Share of the whole seconds that have no spike."""
    return 1 - np.count_nonzero(np.diff(np.append(before, total))) / max(1.0, np.ceil(seconds))


def _longest_silence(before: NDArray[np.int64], total: int, seconds: float) -> tuple[float, float]:
    """Length and begin, from the start, of the longest time without spikes, to a second."""
    per_second = np.diff(np.append(before, total))
    at = np.flatnonzero(per_second)
    edges = np.concatenate([[-1], at, [max(np.ceil(seconds), len(per_second))]]).astype(float)
    longest = int(np.argmax(np.diff(edges)))
    return float(np.diff(edges)[longest] - 1), float(edges[longest] + 1)


def _spikes_within(before: NDArray[np.int64], total: int, bounds: NDArray[np.float64]) -> bool:
    """Whether any spike lies in the whole seconds that the intervals touch."""
    padded = np.append(before, total)
    first = np.clip(np.floor(bounds[:, 0]).astype(int), 0, len(before))
    last = np.clip(np.ceil(bounds[:, 1]).astype(int), 0, len(before))
    return bool((padded[last] > padded[first]).any())


def idle_faults(
    place: str, idle: NDArray[np.float64], seconds: float, splits: dict[str, NDArray[np.float64]]
) -> list[Fault]:
    """Splits in which no unit has a count or a value, so that there is nothing to train on; and long stretches.

    Args:
        place: Where the activity is.
        idle: Stretches without any, in s, (n, 2).
        seconds: Length of the recording.
        splits: Names of splits to their intervals in s, (n, 2).
    """
    faults = []
    since, until = max(idle, key=np.ptp, default=(0.0, 0.0))
    if until - since > max(10.0, _LONGEST_SILENCE * seconds):
        found = f"no activity from {since:,.0f} to {until:,.0f} s, {(until - since) / seconds:.0%} of it"
        faults.append(Fault(place, found, _STRETCHED_FIX, is_error=False))
    return faults + [
        Fault(f"{name}_domain", f"no activity in it ({place})", _SPLITS_FIX, is_error=name == "train")
        for name, bounds in splits.items()
        if len(bounds) and lie_within(bounds, idle).all()
    ]


def split_length_faults(splits: dict[str, NDArray[np.float64]], seconds: float) -> list[Fault]:
    """Signs that the bounds of splits are shares of the recording, or in another unit.

    Args:
        splits: Names of splits to their intervals in s, (n, 2).
        seconds: Length of the recording.
    """
    covered = sum(float(np.diff(bounds, axis=1).sum()) for bounds in splits.values())
    if not 0 < covered < _LEAST_COVER * seconds:
        return []
    found = f"all splits together are {covered:.3g} s of {seconds:,.0f} s"
    fix = "Give starts and ends in seconds, not as shares of the recording."
    return [Fault("train_domain", found, fix, is_error=False)]


def grid_faults(place: str, values: NDArray, bin_size: float) -> list[Fault]:
    """Signs that a bin width is no seconds, and of counts, that they are something else, see :func:`count_faults`.

    Args:
        place: ``"spike_counts/value"`` or ``"mua/value"``.
        values: (T, N).
        bin_size: In s.
    """
    faults = count_faults(values, bin_size) if place == "spike_counts/value" else []
    if bin_size > _WIDEST_BIN:
        found = f"bins of {bin_size:g} s"
        faults.append(
            Fault(place, found, "Give the bin width in seconds: neither milliseconds nor Hz.", is_error=False)
        )
    return faults


def count_faults(counts: NDArray, bin_size: float) -> list[Fault]:
    """Signs that counts are rates, or that their bins overlap.

    In bins of their own, spikes are counted once, so that neighbouring bins differ by at least about the Poisson
    variance, and the difference of two bins has nothing in common with the next but the shared bin (correlation -1/2).
    Sliding sums differ by less, and their differences are uncorrelated.

    Args:
        counts: (T, N) whole numbers; bins with a NaN are left out.
        bin_size: In s.
    """
    values = np.asarray(counts[:SCANNED_BINS], dtype=np.float64)
    values = values[~np.isnan(values).any(axis=1)]
    faults: list[Fault] = []
    if len(values) < 3 or not values.any():
        return faults
    steps = np.gcd.reduce(values.astype(np.int64), axis=0)
    scaled = (steps > 1) & (np.count_nonzero(values, axis=0) >= _LEAST_SPIKES)
    rate = values.mean(0).max() / bin_size
    if scaled.any():
        found = f"all values of {scaled.sum()} of {len(steps)} units are multiples of {steps[scaled].max()}"
        faults.append(Fault("spike_counts/value", f"{found}, as rounded rates are", _COUNTS_FIX, is_error=False))
    if rate > _MOST_RATE:
        found = f"a unit of {rate:,.0f} spikes/s on average"
        faults.append(Fault("spike_counts/value", found, _COUNTS_FIX, is_error=False))
    difference = np.diff(values, axis=0)
    power = (difference**2).sum(0)
    expected = 2 * values[1:].sum(0) * np.maximum(steps, 1)  # of Poisson counts, in the values' own steps
    shared = (difference[1:] * difference[:-1]).sum(0)
    smooth = (power > _LEAST_SPIKES) & (power < 0.8 * expected) & (shared > -0.25 * power)
    if smooth.mean() > _SMOOTH_SHARE:
        share = power[smooth].sum() / expected[smooth].sum()
        found = f"neighbouring bins of {smooth.sum()} of {len(steps)} units differ by {share:.0%} of what counting "
        found += "would give, as overlapping bins do"
        fix = "Count each spike once: bins that do not overlap, not smoothed. Else the past is seen in the future."
        faults.append(Fault("spike_counts/value", found, fix, is_error=False))
    return faults


_STRETCHED_FIX = "Look for a stray spike, or trials and behaviour on another clock, that stretch the recording."
_SPLITS_FIX = "Choose splits where there is activity."
_COUNTS_FIX = "Give spikes per bin: multiply rates by the bin width. Values in general go into mua."
