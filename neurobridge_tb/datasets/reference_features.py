"""Reference features: 33 numbers that say who a unit is, from spikes of a reference window.

A model that reads units through these instead of through an embedding of each one can be used on units that it never
saw (zero-shot), see :class:`neurobridge_tb.nn.forecasting.id_encoder.IDEncoder`. Columns:

| columns | feature | definition |
| --- | --- | --- |
| 0 | firing rate | spikes / length of the window, Hz |
| 1 | ISI CV | standard deviation / mean of the inter-spike intervals |
| 2-21 | ISI histogram | share of the intervals in each of 20 bins, edges ``geomspace(0.001, 10, 21)`` s |
| 22-31 | autocorrelation | of counts in 10 ms bins, at lags of 1 to 10 bins |
| 32 | Fano factor | variance / mean of counts in 100 ms bins |

Standard deviations and variances are the population's (ddof 0). A histogram bin holds its left edge; intervals below
the first or above the last edge count in the first or last bin. Autocorrelation at lag k is the mean product of
deviations from the mean over the pairs k bins apart, divided by the variance over all bins. Bins begin at the window's
start and only whole ones count. A feature that is not defined (no spike, a single interval, no variance) is 0, so that
a silent unit has 33 zeros.

A window may consist of several intervals, e.g. trials: bins begin anew in each, and neither an inter-spike interval nor
a pair of bins reaches from one into the next.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurobridge_tb._upstream import Data, Interval
from neurobridge_tb.errors import InputError

_SHORTEST = 1.0  # s of a reference window
ISI_EDGES = np.geomspace(1e-3, 10.0, 21)
BIN = 0.01
LAGS = 10
FANO_BINS = 10
N_FEATURES = 1 + 1 + (len(ISI_EDGES) - 1) + LAGS + 1


def reference_features(
    spike_times: ArrayLike, unit_index: ArrayLike, n_units: int, *, start: ArrayLike, end: ArrayLike
) -> NDArray[np.float32]:
    """The 33 reference features of each unit (see the module's docstring).

    Args:
        spike_times: (n,) times in s, in any order.
        unit_index: (n,) unit of each spike, below ``n_units``.
        n_units: Number of units N.
        start: Start of the reference window in s, or the starts of its intervals, ascending and not overlapping.
        end: Its end or ends in s. A spike at an end lies outside.

    Returns:
        (N, 33).

    Raises:
        InputError: The window has no length, or no unit has a spike in it.
    """
    starts, ends = np.atleast_1d(np.asarray(start, float)), np.atleast_1d(np.asarray(end, float))
    if not len(starts) or starts.shape != ends.shape or not (ends > starts).all():
        raise InputError(
            expected="a reference window with start < end (s)",
            found=f"start {starts.tolist()[:3]}, end {ends.tolist()[:3]}",
            fix="Name a stretch of the recording from which to tell its units.",
        )
    times, units = np.asarray(spike_times, float), np.asarray(unit_index, np.int64)
    interval = np.searchsorted(starts, times, side="right") - 1
    inside = (interval >= 0) & (times < ends[interval])
    times, units, interval = times[inside], units[inside], interval[inside]
    if not len(times):
        raise InputError(
            expected=f"spikes in the reference window, {starts[0]:.3f} to {ends[-1]:.3f} s",
            found="none of any unit",
            fix="Choose a window that lies inside the recording; its times are in s.",
        )
    order = np.lexsort((times, units))
    times, units, interval = times[order], units[order], interval[order]

    features = np.zeros((n_units, N_FEATURES))
    features[:, 0] = np.bincount(units, minlength=n_units) / (ends - starts).sum()
    features[:, 1:22] = _interval_features(times, units, interval, n_units)
    layout = _BinLayout(starts, ends)
    slots = layout.slots(times, interval)
    first = np.searchsorted(units, np.arange(n_units + 1))
    for unit in np.flatnonzero(np.diff(first)):
        features[unit, 22:] = layout.features(slots[first[unit] : first[unit + 1]])
    return features.astype(np.float32)


def _interval_features(times: NDArray, units: NDArray, interval: NDArray, n_units: int) -> NDArray:
    """(N, 21): CV and histogram of the inter-spike intervals of spikes sorted by unit and time."""
    neighbours = (units[1:] == units[:-1]) & (interval[1:] == interval[:-1])
    isi, unit = np.diff(times)[neighbours], units[1:][neighbours]
    count = np.maximum(np.bincount(unit, minlength=n_units), 1)
    mean = np.bincount(unit, isi, n_units) / count
    variance = np.bincount(unit, (isi - mean[unit]) ** 2, n_units) / count
    cv = np.divide(np.sqrt(variance), mean, out=np.zeros(n_units), where=mean > 0)
    n_bins = len(ISI_EDGES) - 1
    bins = np.clip(np.searchsorted(ISI_EDGES, isi, side="right") - 1, 0, n_bins - 1)
    histogram = np.bincount(unit * n_bins + bins, minlength=n_units * n_bins).reshape(n_units, n_bins)
    return np.column_stack([cv, histogram / count[:, None]])


class _BinLayout:
    """10 ms bins of all intervals in one row, with a gap after each that is wider than the largest lag."""

    def __init__(self, starts: NDArray, ends: NDArray):
        self.starts = starts
        self.n_bins = np.floor((ends - starts) / BIN + 1e-6).astype(np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.n_bins + LAGS)])
        position = np.arange(self.offsets[-1])
        bins = position - np.repeat(self.offsets[:-1], self.n_bins + LAGS)
        length = np.repeat(self.n_bins, self.n_bins + LAGS)
        self.used = bins < length
        self.n_pairs = np.array([np.maximum(self.n_bins - lag, 0).sum() for lag in range(1, LAGS + 1)])
        window = self.offsets[:-1].repeat(self.n_bins + LAGS) // FANO_BINS + bins // FANO_BINS
        whole = bins < length // FANO_BINS * FANO_BINS
        self.windows, window = np.unique(window[whole], return_inverse=True)
        self.window_of = np.full(len(position), -1)
        self.window_of[whole] = window

    def slots(self, times: NDArray, interval: NDArray) -> NDArray:
        """Position of each spike in the row; spikes after an interval's last whole bin lie in its gap."""
        bins = np.floor((times - self.starts[interval]) / BIN).astype(np.int64)
        return self.offsets[interval] + np.minimum(bins, self.n_bins[interval])

    def features(self, slots: NDArray) -> NDArray:
        """Autocorrelation at lags 1 to 10, and Fano factor, of one unit."""
        out = np.zeros(LAGS + 1)
        counts = np.bincount(slots, minlength=len(self.used)) * self.used
        deviation = np.where(self.used, counts - counts.sum() / max(self.used.sum(), 1), 0.0)
        power = deviation @ deviation
        if power > 0:
            products = [deviation[:-lag] @ deviation[lag:] for lag in range(1, LAGS + 1)]
            covariance = np.divide(products, self.n_pairs, out=np.zeros(LAGS), where=self.n_pairs > 0)
            out[:LAGS] = covariance / (power / self.used.sum())
        whole = self.window_of >= 0
        windows = np.bincount(self.window_of[whole], counts[whole], len(self.windows))
        if windows.sum() > 0:
            out[LAGS] = windows.var() / windows.mean()
        return out


def recording_features(recording: Data, intervals: Interval, *, seconds: float = 60.0) -> NDArray[np.float32]:
    """Reference features of a recording's units, from its spikes or, without these, from its counts.

    Counts become spike times spread evenly over their bins.

    Args:
        recording: A recording; where it holds ``units.reference_features`` (a pipeline made them), these are taken.
        intervals: Where to look, e.g. the recording's training intervals.
        seconds: Length of the reference window, see :func:`reference_window`. Default 60 s.

    Returns:
        (N, 33), see the module's docstring.

    Raises:
        InputError: As :func:`window_features`.
    """
    if "reference_features" in recording.units.keys():
        return np.asarray(recording.units.reference_features, np.float32)
    return window_features(recording, reference_window(intervals, seconds))


def reference_window(intervals: Interval, seconds: float) -> Interval:
    """The first ``seconds`` of intervals."""
    lengths = intervals.end - intervals.start
    left = seconds - np.concatenate([[0.0], np.cumsum(lengths)])[:-1]
    starts = intervals.start[left > 0]
    return Interval(start=starts, end=starts + np.minimum(lengths, left)[left > 0])


def window_features(recording: Data, window: Interval) -> NDArray[np.float32]:
    """Reference features of a recording's units in just this window, whatever the recording brings.

    Args:
        recording: With spikes or spike counts.
        window: One interval, or several in order; a second at least in all.

    Returns:
        (N, 33), see the module's docstring.

    Raises:
        InputError: The window is shorter, or there are no spikes or counts, or no spike in it.
    """
    starts, ends = window.start, window.end
    length = float((ends - starts).sum())
    if length < _SHORTEST:
        raise InputError(
            expected=f"a reference window of at least {_SHORTEST:g} s in recording {recording.session.id}",
            found=f"{length:.3g} s",
            fix="Use a longer one (reference_seconds, or training intervals): rates are not known from so little.",
        )
    if "spikes" in recording.keys():
        times, units = recording.spikes.timestamps, recording.spikes.unit_index
    elif "spike_counts" in recording.keys():
        times, units = _spread_counts(recording.spike_counts.value, recording.spike_counts.timestamps)
    else:
        raise InputError(
            expected=f"spikes or spike_counts in recording {recording.session.id}",
            found=", ".join(sorted(recording.keys())),
            fix="Reference features describe spiking units; multi-unit activity has none.",
        )
    return reference_features(times, units, len(recording.units), start=starts, end=ends)


def _spread_counts(counts: NDArray, starts: NDArray) -> tuple[NDArray, NDArray]:
    """Times and units of spikes that lie evenly within bins with these counts (T, N) and starts (T,)."""
    counts = np.nan_to_num(counts).astype(np.int64)
    bins, units = np.nonzero(counts)
    number = counts[bins, units]
    rank = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    width = starts[1] - starts[0]
    return np.repeat(starts[bins], number) + width * (rank + 0.5) / np.repeat(number, number), np.repeat(units, number)
