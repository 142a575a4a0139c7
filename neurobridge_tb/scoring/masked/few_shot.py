"""Few-shot co-smoothing: how few trials suffice to read hidden units from frozen latents.

Latents that explain hidden units may hold much that no unit needs; then a read-out of new units takes many trials to
fit (Dabholkar and Barak, PLoS Computational Biology 2025).
"""

from collections.abc import Callable, Sequence

import numpy as np

from neurobridge_tb.arrays import Floats
from neurobridge_tb.configs.score import ScoreConfig
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm
from neurobridge_tb.masking import Mask
from neurobridge_tb.metrics.spikes import poisson_log_likelihood
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.masked.bits_tally import Rates, Tally
from neurobridge_tb.scoring.masked.filled_in import network_outputs
from neurobridge_tb.scoring.masked.hidden_cells import glm_inputs, masks_of_task, target_counts
from neurobridge_tb.scoring.split_windows import SplitWindows
from neurobridge_tb.scoring.unit_rates import UnitRates

_DRAWS = 5  # of the trials
_PENALTIES = (1e-2, 1e-1, 1.0, 10.0)


def score_few_shot(
    config: ScoreConfig, model: NeuroBridgeModel, recording: SplitWindows
) -> dict[int, dict[str, Tally]]:
    """Tallies for each number of training windows, the mean over random draws of them.

    A Poisson GLM is fitted to the counts of the units that co-smoothing hides: from what the rows of a unit read of the
    frozen model, from the counts of the units seen, and from the factors that factor analysis finds in these.

    Raises:
        InputError: The recording has fewer training windows than a number asks for, or that is below 2.
    """
    n_windows = len(recording.counts["train"])
    if not all(2 <= shots <= n_windows for shots in config.shots):
        raise InputError(
            expected=f"shots from 2 to {n_windows}, the training windows",
            found=f"shots={list(config.shots)}",
            fix="Choose other numbers with shots=[…].",
        )
    (masks,) = masks_of_task(config, "co_smoothing", recording)
    splits = {split: (recording.windows[split], recording.counts[split]) for split in ("train", "test")}
    features: dict[str, Callable[[Sequence[LazyWindow], Rates], Rates]] = {
        "NeuroBridge": lambda windows, counts: readout_inputs(model, windows, masks(counts)),
        "Poisson GLM": lambda _, counts: [
            glm_inputs(values, mask, tuple(config.glm_lags)) for values, mask in zip(counts, masks(counts), strict=True)
        ],
        "factor analysis": lambda _, counts: [
            recording.factors.posterior_mean(values, mask.keep)
            for values, mask in zip(counts, masks(counts), strict=True)
        ],
    }
    units = masks(recording.counts["test"])[0].target[0]
    trained = UnitRates(recording.trained.spikes[units], recording.trained.bins[units])
    targets = {
        split: [target_counts(values, mask) for values, mask in zip(counts, masks(counts), strict=True)]
        for split, (_, counts) in splits.items()
    }
    tallies: dict[int, dict[str, Tally]] = {shots: {} for shots in config.shots}
    for name, extract in features.items():
        inputs = {split: extract(*some) for split, some in splits.items()}
        for shots in config.shots:
            rng, gains = np.random.default_rng([config.seed, shots]), []
            for _ in range(_DRAWS):
                chosen = rng.choice(n_windows, shots, replace=False)
                x, y = ([of["train"][i] for i in chosen] for of in (inputs, targets))
                rates = _few_shot_rates(x, y, np.concatenate(inputs["test"]))
                ends = np.cumsum([len(values) for values in targets["test"]])[:-1]
                drawn = Tally.of(np.split(rates, ends), targets["test"], trained)
                gains.append(drawn.gain)
            tallies[shots][name] = Tally(np.mean(gains, axis=0), drawn.spikes, drawn.training_spikes)
    return tallies


def readout_inputs(model: NeuroBridgeModel, windows: Sequence[LazyWindow], masks: Sequence[Mask]) -> Rates:
    """What the rows of a unit read in each bin of a window: the bin state, and the factors, (T, D + K).

    NaN in bins without a count to predict.
    """
    outputs = list(network_outputs(model.bin_features, model, windows, masks))
    inputs = [np.full((len(mask.target), outputs[0][1].shape[-1]), np.nan) for mask in masks]
    for k, states, target in outputs:
        inputs[k][target.any(1)] = states[: target.any(1).sum()]
    return inputs


def _few_shot_rates(x: Rates, counts: Rates, x_test: Floats) -> Floats:
    """Rates on the test inputs; one penalty for all units, chosen by two-fold cross-validation over the windows."""

    def rates(some: slice, inputs: Floats, penalty: float) -> Floats:
        train, observed = np.concatenate(x[some]), np.concatenate(counts[some])
        return fit_poisson_glm(train, observed, train, observed, inputs, penalties=[penalty])

    halves = (slice(0, None, 2), slice(1, None, 2))
    likelihood = {
        penalty: sum(
            np.nansum(
                poisson_log_likelihood(rates(half, np.concatenate(x[rest]), penalty), np.concatenate(counts[rest]))
            )
            for half, rest in (halves, halves[::-1])
        )
        for penalty in _PENALTIES
    }
    return rates(slice(None), x_test, max(likelihood, key=likelihood.__getitem__))
