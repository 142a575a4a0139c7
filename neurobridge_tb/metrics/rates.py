"""How good is a forecast? Scores of predicted rates against counts, by unit and by distance into the future.

Everything is accumulated over batches as sums: exact whatever the batches are, and accumulators of several processes
can be merged. Rates are expected counts a bin.
"""

from dataclasses import dataclass

import numpy as np

from neurobridge_tb.arrays import Array, Floats, check_same_shape, to_floats, to_numpy
from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.spikes import BitsPerSpike, BitsPerSpikeScore


class PairMoments:
    """R^2 and correlation of pairs (predicted, observed) for each of several groups, from sums.

    Args:
        n: Number of groups, e.g. units.
    """

    def __init__(self, n: int):
        self._sums = np.zeros((6, n))  # count, x, y, xx, yy, xy

    def update(self, predicted: Array, observed: Array, group: Array) -> None:
        """Add pairs (any shape) and the group of each, broadcastable; NaN pairs are left out."""
        x, y = to_floats(predicted), to_floats(observed)
        check_same_shape("predicted", x, "observed", y)
        used = ~np.isnan(x) & ~np.isnan(y)
        index, x, y = np.broadcast_to(to_numpy(group), y.shape)[used], x[used], y[used]
        for row, values in zip(self._sums, (np.ones_like(x), x, y, x * x, y * y, x * y), strict=True):
            row += np.bincount(index, values, len(row))

    def merge(self, other: "PairMoments") -> None:
        """Add what another accumulator over the same groups has seen."""
        check_same_shape("sums", self._sums, "sums of the other", other._sums)
        self._sums += other._sums

    def pooled(self) -> "PairMoments":
        """The pairs of all groups as one."""
        moments = PairMoments(1)
        moments._sums = self._sums.sum(1, keepdims=True)
        return moments

    def r2(self) -> Floats:
        """Coefficient of determination of each group, against its own mean; NaN where the observed are constant."""
        n, _, y, xx, yy, xy = self._sums
        total = yy - _ratio(y * y, n)
        return 1 - _ratio(yy - 2 * xy + xx, np.where(total > 1e-9 * np.maximum(yy, 1e-30), total, 0))

    def correlation(self) -> Floats:
        """Pearson correlation of each group; NaN where either is constant."""
        n, x, y, xx, yy, xy = self._sums
        variances = [_ratio(s2, n) - _ratio(s, n) ** 2 for s2, s in ((xx, x), (yy, y))]
        product = np.prod([np.where(v > 1e-12, v, 0) for v in variances], axis=0)
        return _ratio(_ratio(xy, n) - _ratio(x, n) * _ratio(y, n), np.sqrt(product))


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)


class PsthScores:
    """R^2 of predicted against observed peri-stimulus time histograms, for each unit.

    A PSTH is the mean over trials of one condition at each time in the trial. Both PSTHs are made of the same bins.

    Args:
        n_conditions: Number of conditions.
        n_bins: Bins of a trial.
        n_units: Number of units.
    """

    def __init__(self, n_conditions: int, n_bins: int, n_units: int):
        self._sums = np.zeros((3, n_conditions, n_bins, n_units))  # bins, predicted, observed

    def update(self, rates: Array, counts: Array, *, condition: Array, mask: Array, units: Array) -> None:
        """Add trials.

        Args:
            rates: (B, T, M) predicted counts a bin, from the trial's first bin on.
            counts: (B, T, M) observed.
            condition: (B,) each trial's condition.
            mask: (B, T, M) which cells exist.
            units: (B, M) each column's unit.
        """
        x, y, used = to_floats(rates), to_floats(counts), to_numpy(mask).astype(bool)
        check_same_shape("rates", x, "counts", y)
        cell = np.broadcast_to(to_numpy(condition)[:, None, None], y.shape)
        time = np.broadcast_to(np.arange(y.shape[1])[None, :, None], y.shape)
        unit = np.broadcast_to(to_numpy(units)[:, None, :], y.shape)
        shape = self._sums.shape[1:]
        index = np.ravel_multi_index((cell[used], time[used], unit[used]), shape)
        for sums, values in zip(self._sums, (np.ones(used.sum()), x[used], y[used]), strict=True):
            sums += np.bincount(index, values, sums.size).reshape(shape)

    def merge(self, other: "PsthScores") -> None:
        """Add what another accumulator of the same shape has seen."""
        check_same_shape("sums", self._sums, "sums of the other", other._sums)
        self._sums += other._sums

    def psth(self) -> tuple[Floats, Floats]:
        """Predicted and observed PSTH, (conditions, bins, units) each; NaN without a trial."""
        bins, predicted, observed = self._sums
        return _ratio(predicted, bins), _ratio(observed, bins)

    def r2(self) -> Floats:
        """(units,) R^2 over the conditions' PSTHs; NaN for a unit whose PSTHs are constant."""
        predicted, observed = self.psth()
        moments = PairMoments(observed.shape[-1])
        moments.update(predicted, observed, np.arange(observed.shape[-1]))
        return moments.r2()


@dataclass(frozen=True)
class ForecastScore:
    """Scores of a forecast.

    Attributes:
        bits_per_spike: Over all bins of the future.
        by_bin: The same for each distance into the future, first bin first.
        r2: (units,) R^2 of rates against counts, bin by bin.
        rate_correlation: (units,) Pearson correlation, over windows, of predicted and observed mean rate of the future.
        count_correlation: Pearson correlation of rates and counts over all bins of all units; so it also counts that
            units differ in their mean rates.
    """

    bits_per_spike: BitsPerSpikeScore
    by_bin: list[BitsPerSpikeScore]
    r2: Floats
    rate_correlation: Floats
    count_correlation: float


class ForecastScores:
    """Accumulates the scores of forecasts.

    Args:
        null_rates: (units,) mean training counts a bin.
        n_bins: Bins of the future.
        training_spikes: (units,) spikes in training, see :class:`BitsPerSpike`. Default: unknown.
    """

    def __init__(self, null_rates: Array, n_bins: int, training_spikes: Array | None = None):
        self._bits = [BitsPerSpike(null_rates, training_spikes) for _ in range(n_bins)]
        n_units = len(self._bits[0].null_rates)
        self._counts, self._rates = PairMoments(n_units), PairMoments(n_units)

    def update(self, rates: Array, counts: Array, *, mask: Array, units: Array) -> None:
        """Add a batch.

        Args:
            rates: (B, T, M) predicted counts a bin.
            counts: (B, T, M) observed counts.
            mask: (B, T, M) which cells are scored.
            units: (B, M) each column's unit, an index into the null rates.
        """
        x, y, used = to_floats(rates), to_floats(counts), to_numpy(mask).astype(bool)
        if x.shape[1] > len(self._bits):
            raise InputError(
                expected=f"at most {len(self._bits)} bins", found=f"{x.shape[1]}", fix="Count all bins of the future."
            )
        index = to_numpy(units)
        for t in range(x.shape[1]):
            self._bits[t].update(x[:, t], y[:, t], mask=used[:, t], units=index)
        x, y = np.where(used, x, np.nan), np.where(used, y, np.nan)
        self._counts.update(x, y, index[:, None])
        n = used.sum(1)
        self._rates.update(_ratio(np.nansum(x, 1), n), _ratio(np.nansum(y, 1), n), index)

    def merge(self, other: "ForecastScores") -> None:
        """Add what another accumulator (another process's) has seen."""
        for mine, others in zip(self._bits, other._bits, strict=True):
            mine.merge(others)
        self._counts.merge(other._counts)
        self._rates.merge(other._rates)

    def compute(self) -> ForecastScore:
        """The scores of everything seen so far."""
        total = BitsPerSpike(self._bits[0].null_rates, self._bits[0].training_spikes)
        for bits in self._bits:
            total.merge(bits)
        return ForecastScore(
            bits_per_spike=total.compute(),
            by_bin=[bits.compute() for bits in self._bits],
            r2=self._counts.r2(),
            rate_correlation=self._rates.correlation(),
            count_correlation=float(self._counts.pooled().correlation()[0]),
        )
