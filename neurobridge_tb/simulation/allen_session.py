"""What happens in a simulated session of Allen Visual Coding Neuropixels: stimuli, running, and units that respond.

The timing of the stimuli follows Brain Observatory 1.1 (Siegle et al., Nature 2021), shortened to the session's length.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BIN_S = 0.05  # of the rates
PROBE_AREAS = {  # from the tip up
    "probeA": ("LP", "CA1", "VISam"),
    "probeB": ("APN", "CA1", "VISpm"),
    "probeC": ("LGd", "CA1", "VISp"),
    "probeD": ("LP", "DG", "VISl"),
    "probeE": ("LGd", "CA3", "VISal"),
    "probeF": ("VPM", "CA1", "VISrl"),
}
_N_SCENES = 118
_N_SHARED = 4  # slow signals that units share
_RUNNING_HZ = 60.0
# Name, share of the session, time from one presentation to the next and time on screen, in s; in the order of showing.
_EPOCHS = (
    ("gabors", 0.09, 0.25, 0.25),
    ("flashes", 0.04, 2.0, 0.25),
    ("drifting_gratings", 0.12, 3.0, 2.0),
    ("natural_movie_three", 0.10, 1 / 30, 1 / 30),
    ("natural_movie_one", 0.06, 1 / 30, 1 / 30),
    ("natural_scenes", 0.14, 0.25, 0.25),
    ("static_gratings", 0.12, 0.25, 0.25),
    ("natural_scenes", 0.14, 0.25, 0.25),
)
_FRAMES = {"natural_movie_one": 900, "natural_movie_three": 3600}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """Stimuli and running of a session.

    Attributes:
        seconds: Length in s.
        tables: For each stimulus its columns, one entry a presentation, as the NWB file names them.
        running_times: (n,) s.
        running_speed: (n,) cm/s.
        features: (bins, K) what modulates units besides natural scenes, in standard deviations.
        scene: (bins,) the natural scene that acts on a bin, from 0; -1 where none does.
    """

    seconds: float
    tables: dict[str, dict[str, Any]]
    running_times: Floats
    running_speed: Floats
    features: NDArray[np.float32]
    scene: NDArray[np.int64]

    @classmethod
    def draw(cls, seconds: float, rng: np.random.Generator) -> "Schedule":
        """Order of presentations, running bouts and slow shared signals."""
        gap = (1 - sum(share for _, share, _, _ in _EPOCHS)) / (len(_EPOCHS) + 1) * seconds
        began = gap
        parts: dict[str, list[dict[str, Any]]] = {"spontaneous": []}
        for block, (name, share, step, on) in enumerate(_EPOCHS):
            start = began + step * np.arange(int(share * seconds / step))
            parameters = _PARAMETERS[name](len(start), rng)
            columns = {"start_time": start, "stop_time": start + on, **parameters}
            parts.setdefault(name, []).append(columns | {"stimulus_block": np.full(len(start), float(block))})
            parts["spontaneous"].append({"start_time": [began - gap], "stop_time": [began]})
            began = start[-1] + step + gap
        parts["spontaneous"].append({"start_time": [began - gap], "stop_time": [min(began, seconds)]})
        tables = {
            name: {key: np.concatenate([part[key] for part in epochs]) for key in epochs[0]}
            for name, epochs in parts.items()
        }

        n_bins = int(seconds / BIN_S)
        centre = BIN_S * (np.arange(n_bins) + 0.5)
        shown = tables["natural_scenes"]
        row = np.searchsorted(shown["start_time"], centre - BIN_S, side="right") - 1  # 50 ms after onset
        on_screen = (row >= 0) & (centre - BIN_S < shown["stop_time"][row])
        scene = np.where(on_screen, shown["frame"][row].astype(np.int64), -1)
        times = np.arange(0, seconds, 1 / _RUNNING_HZ)
        bouts = np.convolve(rng.normal(size=len(times) + 300), np.hanning(301), "valid")
        speed = np.clip(30 * bouts / bouts.std(), -1, None) + rng.normal(0, 0.5, len(times))
        slow = np.stack([_smooth(rng, n_bins, width) for width in np.geomspace(20, 200, _N_SHARED)], axis=1)
        running = np.interp(centre, times, speed) / speed.std()
        return cls(seconds, tables, times, speed, np.column_stack([slow, running]).astype(np.float32), scene)

    def spikes(self, log_rate: NDArray[np.float32], rng: np.random.Generator) -> Floats:
        """Sorted spike times in s of a unit with these log-rates, (bins,) in log Hz."""
        counts = rng.poisson(np.exp(log_rate) * BIN_S)
        bins = np.repeat(np.arange(len(counts)), counts)
        return np.sort(BIN_S * (bins + rng.random(len(bins))))


@dataclass(frozen=True)
class Population:
    """Units and what they respond to.

    Attributes:
        probe: (units,) index of the probe.
        channel: (units,) channel on the probe, from the tip up.
        base_rate: (units,) Hz.
        loading: (units, K) of the schedule's features, in log-rate.
        tuning: (units, 118) to natural scenes, in log-rate.
        metrics: Quality columns, as the NWB file names them.
    """

    probe: NDArray[np.int64]
    channel: NDArray[np.int64]
    base_rate: Floats
    loading: NDArray[np.float32]
    tuning: NDArray[np.float32]
    metrics: dict[str, Any]

    @property
    def probe_names(self) -> list[str]:
        return list(PROBE_AREAS)

    @classmethod
    def draw(cls, n_units: int, rate: float, rng: np.random.Generator) -> "Population":
        """Units over all probes; about half of them are well isolated."""
        base = rng.lognormal(0, 0.8, n_units)
        metrics = {
            "quality": np.where(rng.random(n_units) < 0.85, "good", "noise"),
            "isi_violations": rng.exponential(0.2, n_units),
            "amplitude_cutoff": np.where(rng.random(n_units) < 0.02, np.nan, rng.exponential(0.04, n_units)),
            "presence_ratio": np.where(rng.random(n_units) < 0.85, 0.99, rng.uniform(0.3, 0.95, n_units)),
            "snr": rng.gamma(4, 0.8, n_units),
            "waveform_duration": rng.choice([0.25, 0.55], n_units, p=[0.3, 0.7]),
        }
        return cls(
            probe=np.arange(n_units) % len(PROBE_AREAS),
            channel=rng.integers(0, 384, n_units),
            base_rate=rate * base / base.mean(),
            loading=rng.normal(0, 0.3, (n_units, _N_SHARED + 1)).astype(np.float32),
            tuning=rng.normal(0, 0.5, (n_units, _N_SCENES)).astype(np.float32),
            metrics=metrics,
        )

    def log_rate(self, unit: int, schedule: Schedule) -> NDArray[np.float32]:
        """Log of a unit's rate in Hz in each bin, (bins,), with the unit's own mean rate."""
        drive = schedule.features @ self.loading[unit]
        drive += np.where(schedule.scene >= 0, self.tuning[unit][schedule.scene], 0)
        drive -= np.log(np.exp(drive).mean())
        return drive + np.float32(np.log(self.base_rate[unit]))


def _smooth(rng: np.random.Generator, n: int, width: float) -> Floats:
    window = np.hanning(2 * int(width) + 1)
    signal = np.convolve(rng.normal(size=n + len(window) - 1), window, "valid")
    return signal / max(signal.std(), 1e-9)


def _gabors(n: int, rng: np.random.Generator) -> dict[str, Any]:
    grid = np.arange(-40.0, 41.0, 10.0)
    return {
        "x_position": rng.choice(grid, n),
        "y_position": rng.choice(grid, n),
        "orientation": rng.choice([0.0, 45.0, 90.0], n),
        "spatial_frequency": np.full(n, "0.08"),
        "temporal_frequency": np.full(n, 4.0),
    }


def _drifting_gratings(n: int, rng: np.random.Generator) -> dict[str, Any]:
    blank = rng.random(n) < 0.05
    return {
        "orientation": np.where(blank, np.nan, rng.choice(np.arange(0.0, 360.0, 45.0), n)),
        "temporal_frequency": np.where(blank, np.nan, rng.choice([1.0, 2.0, 4.0, 8.0, 15.0], n)),
        "spatial_frequency": np.where(blank, "null", "0.04"),
        "contrast": np.where(blank, np.nan, 0.8),
    }


def _static_gratings(n: int, rng: np.random.Generator) -> dict[str, Any]:
    blank = rng.random(n) < 0.03
    return {
        "orientation": np.where(blank, np.nan, rng.choice(np.arange(0.0, 180.0, 30.0), n)),
        "spatial_frequency": np.where(blank, np.nan, rng.choice([0.02, 0.04, 0.08, 0.16, 0.32], n)),
        "phase": np.where(blank, "null", rng.choice(["0.0", "0.25", "0.5", "0.75"], n)),
    }


def _natural_scenes(n: int, rng: np.random.Generator) -> dict[str, Any]:
    """Each scene and the blank (-1) once before any comes again."""
    rounds = [rng.permutation(_N_SCENES + 1) - 1 for _ in range(n // (_N_SCENES + 1) + 1)]
    return {"frame": np.concatenate(rounds)[:n].astype(np.float64)}


def _frames_of(name: str) -> Any:
    return lambda n, rng: {"frame": (np.arange(n) % _FRAMES[name]).astype(np.float64)}


_PARAMETERS: dict[str, Any] = {
    "gabors": _gabors,
    "flashes": lambda n, rng: {"color": rng.choice(["-1.0", "1.0"], n)},
    "drifting_gratings": _drifting_gratings,
    "static_gratings": _static_gratings,
    "natural_scenes": _natural_scenes,
    "natural_movie_one": _frames_of("natural_movie_one"),
    "natural_movie_three": _frames_of("natural_movie_three"),
}
