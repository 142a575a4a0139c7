"""A recording session of the virtual ventral stream: order of presentations, trial noise, drift, faults, normalisation.

The design is that of TVSD (Papale et al. 2025): four images a trial, four days, training images once and test images
repeatedly, all mixed. A response is the mean multi-unit activity in the area's window, in microvolts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation.ventral_stream import N_CHANNELS, Electrodes, Floats

N_DAYS = 4
IMAGES_PER_TRIAL = 4
_NOISE = {"V1": 1.1, "V4": 1.4, "IT": 1.3}  # deviation of a typical site's own noise, in deviations of its drive
_SHARED_NOISE = {"V1": 0.9, "V4": 0.9, "IT": 0.8}
_LATENCY_MS = {"V1": (42.0, 4.0), "V4": (62.0, 6.0), "IT": (95.0, 9.0)}  # mean, deviation over sites
_N_FACTORS = 60  # of shared noise in an area; it lies along what images evoke, which limits information


@dataclass(frozen=True)
class Design:
    """Order of presentations; every array has one entry a presentation, in time order.

    ``image`` counts training images first, then test images; ``repeat``, ``position`` and ``day`` count from 0.
    """

    n_train: int
    n_test: int
    n_repeats: int
    image: NDArray[np.int64]
    repeat: NDArray[np.int64]
    trial: NDArray[np.int64]
    position: NDArray[np.int64]
    day: NDArray[np.int64]

    @property
    def is_test(self) -> NDArray[np.bool_]:
        return self.image >= self.n_train

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Presentations in file order: of the training images (n_train,), of the repeats (n_repeats, n_test)."""
        order = np.lexsort((self.image, self.repeat, self.is_test))
        return order[: self.n_train], order[self.n_train :].reshape(self.n_repeats, self.n_test)


@dataclass(frozen=True)
class Recording:
    """What the electrodes gave; channels in physical order.

    Attributes:
        responses: Mean activity in the area's window, microvolts, shape (presentations, 1024).
        spontaneous_mean: Before the stimulus, shape (4 days, 1024), microvolts.
        spontaneous_sd: Before the stimulus, shape (4 days, 1024), microvolts.
        latency_ms: Shape (4, 1024); NaN for dead channels.
        is_dead: Shape (1024,).
    """

    design: Design
    electrodes: Electrodes
    responses: Floats
    spontaneous_mean: Floats
    spontaneous_sd: Floats
    latency_ms: Floats
    is_dead: NDArray[np.bool_]

    def normalised(self) -> NDArray[np.float64]:
        """Responses minus the mean, over the deviation of the day's test presentations, channel by channel.

        A channel without signal is divided by a hundredth of the median deviation instead of its own, which keeps it
        near zero. float64, shape (presentations, 1024).
        """
        out = self.responses.astype(np.float64)
        for day in range(N_DAYS):
            today = self.design.day == day
            mean, deviation = mean_and_deviation(out[today & self.design.is_test])
            out[today] = (out[today] - mean) / np.fmax(deviation, np.nanmedian(deviation) / 100)
        return out

    def signal_to_noise(self) -> NDArray[np.float64]:
        """Mean evoked response over the deviation of spontaneous activity, shape (4 days, 1024)."""
        days = [self.responses[self.design.day == day].astype(np.float64) for day in range(N_DAYS)]
        evoked = np.stack([mean_and_deviation(today)[0] for today in days])
        return (evoked - self.spontaneous_mean) / self.spontaneous_sd


def mean_and_deviation(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sample deviation along the first axis over the values that are not NaN; NaN where there are none."""
    count = (~np.isnan(values)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, np.nansum(values, axis=0) / count, np.nan)
        square = np.nansum((values - mean) ** 2, axis=0)
        return mean, np.where(count > 1, np.sqrt(square / (count - 1)), np.nan)


def check_design(n_train: int, n_test: int, n_repeats: int) -> None:
    """Refuse what :func:`draw_design` refuses. Call it before images are drawn.

    Raises:
        InputError: Fewer than two test images, or fewer repeats or training images than days.
    """
    if n_train < N_DAYS or n_test < 2 or n_repeats < N_DAYS:
        raise InputError(
            expected=f"at least {N_DAYS} training images, 2 test images and {N_DAYS} repeats, one a recording day",
            found=f"{n_train} training images, {n_test} test images, {n_repeats} repeats",
            fix="Raise n_repeats (--repeats), or give more images (--concepts, --per-concept).",
        )


def draw_design(n_train: int, n_test: int, n_repeats: int, rng: np.random.Generator) -> Design:
    """Shuffle presentations over four days; each day shows a share of the repeats of every test image.

    Raises:
        InputError: See :func:`check_design`.
    """
    check_design(n_train, n_test, n_repeats)
    repeats = np.repeat(np.arange(n_repeats), n_test)
    image = np.concatenate([np.arange(n_train), n_train + np.tile(np.arange(n_test), n_repeats)])
    repeat = np.concatenate([np.zeros(n_train, dtype=np.int64), repeats])
    train_day = rng.permutation(n_train) * N_DAYS // n_train
    day = np.concatenate([train_day, repeats * N_DAYS // n_repeats])
    order = np.lexsort((rng.random(len(day)), day))
    today = np.arange(len(day)) - np.searchsorted(day[order], day[order])
    trials_before = np.cumsum([0, *(-(-np.bincount(day) // IMAGES_PER_TRIAL))])[day[order]]
    return Design(
        n_train,
        n_test,
        n_repeats,
        image=image[order],
        repeat=repeat[order],
        trial=trials_before + today // IMAGES_PER_TRIAL,
        position=today % IMAGES_PER_TRIAL,
        day=day[order],
    )


def record(
    drive: Floats, electrodes: Electrodes, design: Design, *, monkey: str, noise: float, rng: np.random.Generator
) -> Recording:
    """Play the design to the stream and record it.

    Args:
        drive: Noise-free drive, shape (images, 1024), deviation 1; training images first.
        electrodes: Their areas and arrays.
        design: Order of presentations.
        monkey: ``"N"`` lacks one V1 array, ``"F"`` a handful of single channels.
        noise: Scale of all trial noise, default of the simulator 1.0; 0 gives noise-free trials.
        rng: Draws everything random.
    """
    n = len(design.image)
    scale = np.exp(rng.normal(0, 0.4, N_CHANNELS)) * 1.5  # microvolts a deviation of drive
    floor = np.exp(rng.normal(1, 0.4, N_CHANNELS))
    day_gain = np.exp(0.15 * rng.standard_normal((N_DAYS, N_CHANNELS)).cumsum(0))
    day_floor = floor * np.exp(0.1 * rng.standard_normal((N_DAYS, N_CHANNELS)).cumsum(0))
    own = noise * np.exp(rng.normal(0, 0.35, N_CHANNELS)) * _by_area(_NOISE, electrodes)

    arousal = rng.standard_normal(design.trial.max() + 1)[design.trial]
    patterns = drive[rng.choice(len(drive), _N_FACTORS)] - drive.mean(axis=0)
    fluctuation = rng.standard_normal((n, _N_FACTORS))
    values = drive[design.image]
    for area in _NOISE:
        sites = electrodes.area == area
        gain = np.exp(noise * (0.15 * arousal + 0.1 * rng.standard_normal(n)))
        shared = fluctuation @ patterns[:, sites] * (noise * _SHARED_NOISE[area] / _N_FACTORS**0.5)
        values[:, sites] = values[:, sites] * gain[:, None].astype(np.float32) + shared.astype(np.float32)
    # Student's t with 4 degrees of freedom: movements and electrical artefacts give heavy tails
    values += rng.standard_t(4, (n, N_CHANNELS)).astype(np.float32) * (own / 2**0.5).astype(np.float32)
    values *= (scale * day_gain)[design.day].astype(np.float32)
    values += day_floor[design.day].astype(np.float32)

    dead = _dead_channels(electrodes, monkey, rng)
    values[:, dead] = rng.normal(0, 1e-4, (n, int(dead.sum()))) + floor[dead]
    day_floor[:, dead] = floor[dead]
    _lose_values(values, design, rng.choice(np.flatnonzero(~dead), 3, replace=False), rng)

    mean, spread = (np.array([_LATENCY_MS[a][k] for a in electrodes.area]) for k in (0, 1))
    latency = mean + spread * rng.standard_normal(N_CHANNELS) + rng.normal(0, 1, (N_DAYS, N_CHANNELS))
    latency[:, dead] = np.nan
    spontaneous_sd = np.where(dead, 1e-4, scale * day_gain * np.maximum(own, 0.1))
    return Recording(
        design,
        electrodes,
        values,
        day_floor.astype(np.float32),
        spontaneous_sd.astype(np.float32),
        latency.astype(np.float32),
        dead,
    )


def _by_area(values: dict[str, float], electrodes: Electrodes) -> NDArray[np.float64]:
    return np.array([values[area] for area in electrodes.area])


def _dead_channels(electrodes: Electrodes, monkey: str, rng: np.random.Generator) -> NDArray[np.bool_]:
    dead = np.zeros(N_CHANNELS, dtype=bool)
    dead[rng.choice(N_CHANNELS, 6, replace=False)] = True
    if monkey == "N":
        dead |= electrodes.array == rng.choice(np.unique(electrodes.array[electrodes.area == "V1"]))
    return dead


def _lose_values(values: Floats, design: Design, unplugged: NDArray[np.int64], rng: np.random.Generator) -> None:
    """NaN in place: some channels are unplugged for one day, and single values go missing."""
    for channel in unplugged:
        values[design.day == rng.integers(N_DAYS), channel] = np.nan
    lost = max(3, values.size // 50_000)
    values[rng.integers(len(values), size=lost), rng.integers(N_CHANNELS, size=lost)] = np.nan
