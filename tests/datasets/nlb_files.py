"""Simulated files in the layout of MC_Maze, of the Neural Latents Benchmark."""

from datetime import UTC, datetime

import numpy as np

N_UNITS, HELD_OUT, N_CONDITIONS = 18, (2, 9, 14), 4
TRAIN = "sub-Jenkins_ses-small_desc-train_behavior+ecephys.nwb"
TEST = "sub-Jenkins_ses-small_desc-test_ecephys.nwb"


def simulate_mc_maze(folder, *, n_trials=40, n_test=6, seed=0):
    """Reaches in four directions, by which units fire around the onset; returns both paths.

    The training file holds trials one after the other, every fifth of which is for validation; the test file holds
    0.7 s of each, of the held-in units.
    """
    rng = np.random.default_rng(seed)
    tuning = rng.normal(0, 1.3, (2, N_UNITS))
    trials = _trials(rng, n_trials, ["val" if k % 5 == 4 else "train" for k in range(n_trials)])
    times = np.arange(0, trials["stop_time"][-1], 0.001)
    velocity = _velocity(trials, times)
    spikes = _spikes(rng, velocity, tuning)
    _write(folder / TRAIN, spikes, range(N_UNITS), trials, (trials["start_time"], trials["stop_time"]), velocity, times)

    later = _trials(rng, n_test, ["test"] * n_test)
    times = np.arange(0, later["stop_time"][-1], 0.001)
    spikes = _spikes(rng, _velocity(later, times), tuning)
    onset = later["move_onset_time"]
    for unit, its in enumerate(spikes):
        spikes[unit] = its[((its >= onset[:, None] - 0.25) & (its < onset[:, None] + 0.45)).any(0)]
    held_in = [unit for unit in range(N_UNITS) if unit not in HELD_OUT]
    seen = {name: later[name] for name in ("start_time", "stop_time", "move_onset_time", "split")}
    _write(folder / TEST, spikes, held_in, seen, (onset - 0.25, onset + 0.45))
    return folder / TRAIN, folder / TEST


def _trials(rng, n, split):
    start = np.round(np.cumsum(np.append(0.0, rng.uniform(1.5, 1.9, n)))[:-1], 3)
    onset = np.round(start + rng.uniform(0.5, 0.6, n), 3)
    return {
        "start_time": start,
        "stop_time": np.append(start[1:], start[-1] + 1.6),
        "move_onset_time": onset,
        "go_cue_time": onset - 0.3,
        "trial_type": np.arange(n) % N_CONDITIONS,
        "trial_version": np.zeros(n, dtype=int),
        "split": split,
    }


def _velocity(trials, times):
    velocity = np.zeros((len(times), 2))
    for onset, condition in zip(trials["move_onset_time"], trials["trial_type"], strict=True):
        angle = 2 * np.pi * condition / N_CONDITIONS
        speed = np.exp(-0.5 * ((times - onset - 0.2) / 0.1) ** 2)
        velocity += speed[:, None] * [np.cos(angle), np.sin(angle)]
    return velocity


def _spikes(rng, velocity, tuning):
    """Times at a resolution of 1 ms; activity leads the hand by 0.1 s."""
    rates = np.exp(3.3 + np.roll(velocity, -100, axis=0) @ tuning)
    return [np.flatnonzero(rng.random(len(rate)) < rate * 0.001) * 0.001 for rate in rates.T]


def _write(path, spikes, units, trials, observed, velocity=None, times=None):
    import pynwb

    nwb = pynwb.NWBFile("simulated", "id", datetime(2021, 1, 1, tzinfo=UTC))
    nwb.subject = pynwb.file.Subject(subject_id="Jenkins", species="Macaca mulatta", sex="M", age="P8Y")
    nwb.add_unit_column("heldout", "whether the unit is held out")
    for unit in units:
        nwb.add_unit(
            id=1000 + unit,
            spike_times=spikes[unit],
            obs_intervals=np.stack(observed, axis=1),
            heldout=unit in HELD_OUT,
        )
    for name in trials:
        if name not in ("start_time", "stop_time"):
            nwb.add_trial_column(name, name)
    for k in range(len(trials["start_time"])):
        nwb.add_trial(**{name: column[k] for name, column in trials.items()})
    if velocity is not None:
        behavior = nwb.create_processing_module("behavior", "the hand")
        for name, data in (("hand_vel", velocity), ("hand_pos", np.cumsum(velocity, axis=0) * 0.001)):
            series = pynwb.TimeSeries(
                name=name, data=data, timestamps=times, unit="m", comments="columns=[x,y]", description=name
            )
            behavior.add(series)
    with pynwb.NWBHDF5IO(path, "w") as writer:
        writer.write(nwb)
