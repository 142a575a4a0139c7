"""The Neural Latents Benchmark's plain baseline (Pei et al. 2021): a Poisson GLM on smoothed spikes."""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from neurobridge_tb.arrays import Floats
from neurobridge_tb.estimators.poisson_glm import fit_poisson_glm

_DEVIATION_S = 0.05  # of the Gaussian
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
_VALID = 10  # every tenth trial chooses the penalty


def smoothed_spikes_rates(
    train: Floats, test: Floats, held_out: np.ndarray, *, n_seen: int, bin_size: float
) -> tuple[Floats, Floats]:
    """Expected counts of what is held out in the test windows, from the held-in units in the bins seen.

    Args:
        train: (windows, bins, units) counts of the training windows.
        test: (windows, bins, units) counts; nothing but the held-in units in the bins seen is looked at.
        held_out: (units,) bool.
        n_seen: Bins seen, from the window's start.
        bin_size: In s.

    Returns:
        Rates (windows, n_seen, held-out units), and (windows, later bins, units): from the smoothed activity of the
        last bin seen and the time.
    """
    sigma = _DEVIATION_S / bin_size
    is_valid = np.arange(len(train)) % _VALID == _VALID - 1
    parts = {"train": train[~is_valid], "valid": train[is_valid], "test": test}
    smooth = {
        name: gaussian_filter1d(counts[:, :n_seen, ~held_out], sigma, axis=1, mode="nearest")
        for name, counts in parts.items()
    }
    n_later = train.shape[1] - n_seen

    def later(activity: Floats) -> Floats:
        return np.hstack([np.repeat(activity[:, -1], n_later, axis=0), np.tile(np.eye(n_later), (len(activity), 1))])

    seen = _fit(
        {name: x.reshape(-1, x.shape[2]) for name, x in smooth.items()},
        {name: counts[:, :n_seen, held_out] for name, counts in parts.items()},
    )
    forward = _fit(
        {name: later(x) for name, x in smooth.items()}, {name: counts[:, n_seen:] for name, counts in parts.items()}
    )
    return seen.reshape(len(test), n_seen, -1), forward.reshape(len(test), n_later, -1)


def _fit(inputs: dict[str, Floats], counts: dict[str, Floats]) -> Floats:
    rows = {name: values.reshape(-1, values.shape[2]) for name, values in counts.items()}
    return fit_poisson_glm(
        inputs["train"], rows["train"], inputs["valid"], rows["valid"], inputs["test"], penalties=_PENALTIES
    )
