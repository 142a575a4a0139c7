"""A simulated session in the layout of IBL's Brain-Wide Map: ALF files of spikes, wheel and trials.

A mouse sees a stimulus on the left or right and turns a wheel. Units follow the wheel's velocity, its speed or the
stimulus, to different degrees. File names, columns and units of measure are those of the ALF convention
(https://int-brain-lab.github.io/ONE/alf_intro.html): times in s, wheel positions in rad, depths in um from the tip.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError, require
from neurobridge_tb.files import read_json, write_aside, write_folder, write_json

LAB = "simulatedlab"
STRUCTURES = {993: "MOs", 385: "VISp", 382: "CA1", 726: "DG", 218: "LP", 672: "CP"}  # ids of the Allen CCF
_AREAS = ((218, 382, 385), (672, 993, 997))  # of the probes, from tip to surface; 997 (root) stays without acronym
_N_CHANNELS, _CHANNEL_PITCH_UM = 384, 20.0
_ENCODER_STEP = 2 * np.pi / 2048  # rad
_STEP_S = 0.005  # of the simulated rates
_TRIAL_S = 5.0
_MAX_RATE_HZ = 80.0

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class _Behaviour:
    """Trials (columns of the table), and the wheel's velocity at ``times``, every 5 ms."""

    trials: dict[str, NDArray]
    times: Doubles
    velocity: Doubles


def simulate_ibl_sessions(
    out_dir: str | Path,
    *,
    n_sessions: int = 1,
    seconds: float = 600.0,
    n_units: int = 24,
    n_probes: int = 2,
    with_uuids: bool = False,
    seed: int = 0,
) -> list[Path]:
    """Simulate sessions and write their raw files as ``brainsets prepare ibl_brain_wide_map_2025`` looks for them.

    Writes ``<out_dir>/raw/ibl_brain_wide_map_2025/simulatedlab/Subjects/SIM_00<k>/2025-01-01/001/alf/…``, beside them
    ``allen_structure_tree.csv``, and ``simulation.json``, which marks the sessions as simulated.

    Args:
        out_dir: Workspace folder.
        n_sessions: Sessions, each of another animal. Default 1.
        seconds: Length of a session in s, at least 10. Default 600.
        n_units: Good units of each probe; as many again are there with lower labels. Default 24.
        n_probes: 1 or 2. Default 2.
        with_uuids: Put a uuid into each file name, as in the public bucket. Default False.
        seed: Another seed draws other animals. Default 0.

    Returns:
        The sessions' folders.

    Raises:
        InputError: Unusable settings, or a recorded session where a simulated one would go.
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow", extra="ibl")
    if not (n_sessions >= 1 and seconds >= 10 and n_units >= 1 and n_probes in (1, 2)):
        raise InputError(
            expected="1 or more sessions and units, 10 seconds or more, and 1 or 2 probes",
            found=f"{n_sessions} sessions, {n_units} units, {seconds:g} seconds, {n_probes} probes",
            fix="Correct the settings.",
        )
    root = Path(out_dir) / "raw" / "ibl_brain_wide_map_2025"
    note_path = root / "simulation.json"
    note: dict[str, Any] = read_json(note_path) if note_path.exists() else {}
    names = [f"{LAB}/Subjects/SIM_{number:03d}/2025-01-01/001" for number in range(n_sessions)]
    for name in names:
        if name not in note and (root / name).exists():
            raise InputError(
                expected="a workspace without recordings under the simulated sessions' names",
                found=f"files that were not simulated in {root / name}",
                fix="Choose another workspace: simulated files never replace recorded ones.",
            )
    settings = {"seconds": seconds, "n_units": n_units, "n_probes": n_probes, "seed": seed}
    write_json(note_path, note | {name: settings for name in names})  # first: no file is ever without its mark
    if not (root / "allen_structure_tree.csv").exists():
        rows = [f"{number},{acronym}" for number, acronym in STRUCTURES.items()]
        with write_aside(root / "allen_structure_tree.csv") as aside:
            aside.write_text("\n".join(["id,acronym", *rows]) + "\n", encoding="utf-8")
    for number, name in enumerate(names):
        rng = np.random.default_rng([seed, number])
        behaviour = _draw_behaviour(seconds, rng)
        files = _wheel_and_trials(behaviour)
        for probe in range(n_probes):
            files |= {
                f"probe{probe:02d}/pykilosort/{file}": content
                for file, content in _probe(behaviour, n_units, _AREAS[probe], rng).items()
            }
        with write_folder(root / name, ["alf"], is_ours=lambda folder: True) as aside:  # all of a session, or nothing
            for file, content in files.items():
                _write(aside / "alf" / (_with_uuid(file, rng) if with_uuids else file), content)
    return [root / name for name in names]


def _draw_behaviour(seconds: float, rng: np.random.Generator) -> _Behaviour:
    """A trial every 5 s: stimulus, then a turn of the wheel to the side of the choice; small moves in between."""
    times = np.arange(0.0, seconds, _STEP_S)
    start = np.arange(0.5, seconds - _TRIAL_S + 0.5, _TRIAL_S)
    n = len(start)
    left = rng.random(n) < 0.5
    contrast = rng.choice([1.0, 0.25, 0.125, 0.0625, 0.0], n)
    correct = rng.random(n) < 0.55 + 0.4 * contrast
    choice = np.where(left == correct, 1, -1)
    stimulus = start + rng.uniform(0.4, 0.7, n)
    movement = stimulus + rng.uniform(0.15, 0.6, n)
    response = movement + rng.uniform(0.1, 0.3, n)

    centres = np.concatenate([movement + 0.15, rng.uniform(0, seconds, 2 * n)])
    heights = np.concatenate([choice * rng.uniform(3, 6, n), rng.normal(0, 1.5, 2 * n)])  # rad/s
    velocity = np.zeros(len(times))
    for centre, height in zip(centres, heights, strict=True):
        near = slice(*np.searchsorted(times, [centre - 0.5, centre + 0.5]))
        velocity[near] += height * np.exp(-0.5 * ((times[near] - centre) / 0.1) ** 2)
    trials = {
        "intervals_0": start,
        "intervals_1": start + _TRIAL_S - 0.5,
        "stimOn_times": stimulus,
        "goCue_times": stimulus + 0.001,
        "firstMovement_times": movement,
        "response_times": response,
        "feedback_times": response + 0.002,
        "stimOff_times": response + 1.0,
        "choice": choice,
        "contrastLeft": np.where(left, contrast, np.nan),
        "contrastRight": np.where(left, np.nan, contrast),
        "feedbackType": np.where(correct, 1, -1),
        "probabilityLeft": np.full(n, 0.5),
        "rewardVolume": np.where(correct, 3.0, 0.0),
    }
    return _Behaviour(trials, times, velocity)


def _wheel_and_trials(behaviour: _Behaviour) -> dict[str, Any]:
    """The wheel as a rotary encoder reports it: a sample at each step of the encoder, none at rest."""
    position = np.cumsum(behaviour.velocity) * _STEP_S
    steps = np.round(position / _ENCODER_STEP)
    kept = np.flatnonzero(np.diff(steps, prepend=np.nan) != 0)
    kept = np.union1d(kept, [len(steps) - 1])
    return {
        "_ibl_wheel.timestamps.npy": behaviour.times[kept],
        "_ibl_wheel.position.npy": steps[kept] * _ENCODER_STEP,
        "_ibl_trials.table.pqt": behaviour.trials,
    }


def _probe(behaviour: _Behaviour, n_good: int, areas: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Spikes and clusters of a probe: the good units and as many others, mixed, at channels from tip to surface."""
    n = 2 * n_good
    label = rng.permutation(np.concatenate([np.ones(n_good), rng.choice([0.0, 1 / 3, 2 / 3], n_good)]))
    channel = np.sort(rng.integers(0, _N_CHANNELS, n))
    times, clusters = [], []
    for cluster, drive in enumerate(_drives(behaviour, n, rng)):
        expected = np.minimum(rng.uniform(2, 15) * np.exp(drive), _MAX_RATE_HZ) * _STEP_S
        counts = rng.poisson(expected)
        spikes = np.repeat(behaviour.times, counts) + rng.uniform(0, _STEP_S, counts.sum())
        times.append(spikes)
        clusters.append(np.full(len(spikes), cluster, dtype=np.uint32))
    order = np.argsort(np.concatenate(times))
    return {
        "spikes.times.npy": np.concatenate(times)[order],
        "spikes.clusters.npy": np.concatenate(clusters)[order],
        "clusters.channels.npy": channel,
        "clusters.depths.npy": (channel // 2 * _CHANNEL_PITCH_UM).astype(np.float32),
        "clusters.metrics.pqt": {
            "cluster_id": np.arange(n),
            "label": label,
            "firing_rate": np.array([len(spikes) for spikes in times]) / (behaviour.times[-1] + _STEP_S),
        },
        "channels.brainLocationIds_ccf_2017.npy": np.repeat(areas, _N_CHANNELS // len(areas)),
    }


def _drives(behaviour: _Behaviour, n: int, rng: np.random.Generator) -> Doubles:
    """(n, T) logarithm of each unit's rate, relative to rest."""
    velocity = behaviour.velocity / behaviour.velocity.std()
    side = np.nan_to_num(behaviour.trials["contrastLeft"]) - np.nan_to_num(behaviour.trials["contrastRight"])
    seen = np.zeros(len(behaviour.times))
    for onset, contrast in zip(behaviour.trials["stimOn_times"], side, strict=True):
        seen[slice(*np.searchsorted(behaviour.times, [onset + 0.05, onset + 0.25]))] = contrast
    signals = np.stack([velocity, np.abs(velocity), seen])
    return rng.normal(0, 1, (n, 3)) * [0.6, 0.4, 1.5] @ signals


def _with_uuid(file: str, rng: np.random.Generator) -> str:
    stem, _, extension = file.rpartition(".")
    return f"{stem}.{UUID(bytes=rng.bytes(16), version=4)}.{extension}"


def _write(path: Path, content: Any) -> None:
    """An array as ``.npy``, a table of columns as ``.pqt``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(content), path)
    else:
        np.save(path, content, allow_pickle=False)
