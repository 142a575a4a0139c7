"""How well are spikes and multi-unit activity predicted? Likelihoods, bits/spike, deviance, R^2.

Rates are expected counts a bin (pass ``log_rates.exp()`` for a model that returns log-rates). NaN counts are left out
everywhere.

**One prior for a unit's rate.** The mean rate of a unit that fired n times in a span of b bins is ``(n + 1/2) / b``:
the posterior mean under Jeffreys' prior of a Poisson rate, as if half a spike had been added to the span. The null
model, the baselines and the models all start from it (:func:`posterior_mean`). So a unit that is silent in training
and fires later is neither impossible to one model nor free to another: of its k spikes in b' test bins, no constant
rate can earn more than ``log2(2 k b / b')`` bits each.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from neurobridge_tb.arrays import Array, Floats, check_same_shape, to_floats, to_numpy
from neurobridge_tb.errors import InputError

PRIOR_SPIKES = 0.5
TRAINED = {">= 1 training spike": 1, ">= 10 training spikes": 10}  # bits/spike are also given over these units
_SMALLEST = 1e-9  # below it a rate counts as this, as in the Neural Latents Benchmark (Pei et al. 2021)


def posterior_mean(spikes: Array, bins: Array) -> Floats:
    """Mean count a bin of units that fired ``spikes`` times in ``bins`` bins, half a spike added (Jeffreys' prior).

    Args:
        spikes: Any shape.
        bins: Broadcastable to it; 0 counts as 1.
    """
    return (to_floats(spikes) + PRIOR_SPIKES) / np.maximum(to_floats(bins), 1)


def poisson_log_likelihood(rates: Array, counts: Array, *, factorial: bool = False) -> Floats:
    """Poisson log-likelihood of each bin, in nats: ``n log r - r``, and ``- log n!`` with the factorial term.

    Args:
        rates: Expected counts a bin, broadcastable to ``counts``.
        counts: Observed counts, any shape.
        factorial: Include ``- log n!``. It cancels in bits/spike and in D^2; a probability needs it.

    Returns:
        Of the shape of ``counts``; NaN where the count is NaN.

    Raises:
        InputError: A rate is negative, as log-rates are.
    """
    expected, observed = to_floats(rates), to_floats(counts)
    if (expected < 0).any():
        raise InputError(
            expected="rates, which are not negative",
            found=f"a minimum of {np.nanmin(expected):.3g}",
            fix="If these are log-rates, pass log_rates.exp().",
        )
    expected = np.maximum(expected, _SMALLEST)
    likelihood = xlogy(observed, expected) - expected
    return likelihood - gammaln(observed + 1) if factorial else likelihood


@dataclass(frozen=True)
class BitsPerSpikeScore:
    """Bits/spike with its aggregations.

    Attributes:
        spike_weighted: All units' log-likelihood gain over all units' spikes.
        unit_mean: Mean over units of each one's bits/spike; silent units are left out.
        per_unit: ``(units,)`` bits/spike of each unit, NaN for a silent one.
        silent_units: How many evaluated units had no spike.
        n_spikes: Spikes evaluated.
        of_trained_units: Spike-weighted, over the units of each entry of ``TRAINED``; empty where training spikes are
            not known.
        d2: Share of the null model's Poisson deviance that is explained, over all units, see :func:`poisson_d2`.
        new_units: How many evaluated units fired, but had no spike in training; 0 where these are not known.
    """

    spike_weighted: float
    unit_mean: float
    per_unit: Floats
    silent_units: int
    n_spikes: int
    of_trained_units: dict[str, float] = field(default_factory=dict)
    new_units: int = 0
    d2: float = float("nan")


class BitsPerSpike:
    """Bits/spike, accumulated over batches: ``(LL_model - LL_null) / (n_spikes ln 2)``, exact whatever the batches are.

    The null model is each unit's mean rate on the training split, see :func:`posterior_mean`.

    Args:
        null_rates: ``(units,)`` mean training counts a bin, above 0.
        training_spikes: ``(units,)`` spikes that each unit fired in the training split, to tell the score over units
            that were active there. Default: unknown.
    """

    def __init__(self, null_rates: Array, training_spikes: Array | None = None):
        self.null_rates = to_floats(null_rates)
        if self.null_rates.ndim != 1 or not (self.null_rates > 0).all():
            raise InputError(
                expected="null rates (units,), counts a bin, all above 0",
                found=f"shape {self.null_rates.shape}, minimum {np.min(self.null_rates, initial=1)}",
                fix="Pass posterior_mean(spikes, bins) of each unit over the training split: half a spike is added.",
            )
        self.training_spikes = None if training_spikes is None else to_floats(training_spikes)
        if self.training_spikes is not None:
            check_same_shape("training_spikes", self.training_spikes, "null_rates", self.null_rates)
        units = len(self.null_rates)
        self._gain, self._spikes, self._bins = np.zeros(units), np.zeros(units), np.zeros(units)
        self._most = 0.0  # gain of rates that are the counts

    def update(self, rates: Array, counts: Array, *, mask: Array | None = None, units: Array | None = None) -> None:
        """Add a batch.

        Args:
            rates: Predicted counts a bin, shape of ``counts``.
            counts: ``(..., units)`` observed counts.
            mask: True where a bin is evaluated (e.g. the masked positions); broadcastable to ``counts``; default: all.
            units: Index of each entry into ``null_rates``, broadcastable to ``counts``; default: the last axis.
        """
        observed, expected = to_floats(counts), to_floats(rates)
        check_same_shape("rates", expected, "counts", observed)
        index = np.arange(observed.shape[-1]) if units is None else to_numpy(units)
        if index.max(initial=-1) >= len(self.null_rates):
            raise InputError(
                expected=f"units below {len(self.null_rates)}, the number of null rates",
                found=f"unit index {index.max()}",
                fix="Make the null rates from the same units as the counts.",
            )
        used = ~np.isnan(observed)
        if mask is not None:
            used = used & to_numpy(mask).astype(bool)
        index = np.broadcast_to(index, observed.shape)[used]
        observed, expected = observed[used], expected[used]
        null = poisson_log_likelihood(self.null_rates[index], observed)
        gain = poisson_log_likelihood(expected, observed) - null
        self._most += float((poisson_log_likelihood(observed, observed) - null).sum())
        size = len(self.null_rates)
        self._gain += np.bincount(index, gain, size)
        self._spikes += np.bincount(index, observed, size)
        self._bins += np.bincount(index, minlength=size)

    def merge(self, other: "BitsPerSpike") -> None:
        """Add what another accumulator over the same units (another worker's) has seen."""
        if not np.array_equal(self.null_rates, other.null_rates):
            raise InputError(
                expected="accumulators with the same null rates",
                found="different null rates",
                fix="Merge only accumulators made for one set of units.",
            )
        self._gain += other._gain
        self._spikes += other._spikes
        self._bins += other._bins
        self._most += other._most

    def compute(self) -> BitsPerSpikeScore:
        """The score of everything seen so far; NaN where no spike was evaluated."""
        silent = self._spikes == 0
        spikes = np.where(silent, np.nan, self._spikes)
        per_unit = self._gain / (spikes * np.log(2))
        total = self._spikes.sum()

        def weighted(some: NDArray[np.bool_]) -> float:
            n = self._spikes[some].sum()
            return float(self._gain[some].sum() / (n * np.log(2))) if n else float("nan")

        trained = self.training_spikes
        return BitsPerSpikeScore(
            spike_weighted=weighted(np.ones(len(spikes), bool)),
            unit_mean=float(per_unit[~silent].mean()) if total else float("nan"),
            per_unit=per_unit,
            silent_units=int((silent & (self._bins > 0)).sum()),
            n_spikes=int(total),
            of_trained_units={} if trained is None else {n: weighted(trained >= k) for n, k in TRAINED.items()},
            d2=float(self._gain.sum() / self._most) if self._most > 0 else float("nan"),
            new_units=0 if trained is None else int((~silent & (trained == 0)).sum()),
        )


def bits_per_spike(rates: Array, counts: Array, null_rates: Array, *, mask: Array | None = None) -> BitsPerSpikeScore:
    """Bits/spike of one array of counts ``(..., units)``; see :class:`BitsPerSpike`."""
    accumulator = BitsPerSpike(null_rates)
    accumulator.update(rates, counts, mask=mask)
    return accumulator.compute()


def poisson_d2(rates: Array, counts: Array, null_rates: Array) -> float:
    """Share of Poisson deviance explained: 1 - deviance(rates) / deviance(null rates), over all bins and units.

    Args:
        rates: Predicted counts a bin, shape of ``counts``.
        counts: ``(..., units)`` observed counts.
        null_rates: ``(units,)`` mean training counts a bin.

    Returns:
        At most 1; 0 is the null model. NaN where the null model is perfect.
    """
    observed = to_floats(counts)
    check_same_shape("rates", to_floats(rates), "counts", observed)
    used = ~np.isnan(observed)
    best = poisson_log_likelihood(observed, observed)
    deviance = (best - poisson_log_likelihood(rates, observed))[used].sum()
    null_deviance = (best - poisson_log_likelihood(null_rates, observed))[used].sum()
    return float(1 - deviance / null_deviance) if null_deviance > 0 else float("nan")


def r2(predicted: Array, target: Array) -> Floats:
    """Coefficient of determination of each column, against the target's own mean.

    Args:
        predicted: ``(n, d)`` or ``(n,)``.
        target: Of the same shape; NaN entries are left out of their column.

    Returns:
        ``(d,)``, or a scalar for ``(n,)``; NaN for a constant target.
    """
    estimate, truth = to_floats(predicted), to_floats(target)
    check_same_shape("predicted", estimate, "target", truth)
    used = ~np.isnan(truth)
    residual = ((truth - estimate) ** 2).sum(0, where=used)
    total = ((truth - truth.mean(0, where=used)) ** 2).sum(0, where=used)
    return 1 - np.divide(residual, total, where=total > 0, out=np.full_like(total, np.nan))


def masked_mse(predicted: Array, target: Array, mask: Array) -> float:
    """Mean squared error over the positions that were masked.

    Args:
        predicted: Any shape; only masked positions are read.
        target: Of the same shape; NaN targets are left out.
        mask: bool, True at the target positions.

    Returns:
        In squared units of the target (1.0 is the training mean's, for z-scored values); NaN without a position.
    """
    estimate, truth, scored = to_floats(predicted), to_floats(target), to_numpy(mask).astype(bool)
    check_same_shape("predicted", estimate, "target", truth)
    check_same_shape("mask", scored, "target", truth)
    scored = scored & ~np.isnan(truth)
    return float(((estimate[scored] - truth[scored]) ** 2).mean()) if scored.any() else float("nan")
