"""Simulated IBL sessions: the published layout, marked as simulated, and units that follow the wheel."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from neurobridge_tb.cli.main import main
from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation import simulate_ibl_sessions


def files(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_it_writes_the_files_of_the_layout(tmp_path):
    (session,) = simulate_ibl_sessions(tmp_path, seconds=20, n_units=4)
    found = files(session / "alf")
    assert {"_ibl_wheel.timestamps.npy", "_ibl_wheel.position.npy", "_ibl_trials.table.pqt"} <= set(found)
    for probe in ("probe00", "probe01"):
        times, clusters, channels = (
            np.load(found[f"{probe}/pykilosort/{name}.npy"], allow_pickle=False)
            for name in ("spikes.times", "spikes.clusters", "clusters.channels")
        )
        assert times.dtype == np.float64 and clusters.dtype == np.uint32 and len(times) == len(clusters)
        assert (np.diff(times) >= 0).all() and 0 <= times[0] and times[-1] < 20
        metrics = parquet.read_table(found[f"{probe}/pykilosort/clusters.metrics.pqt"]).to_pydict()
        assert metrics["cluster_id"] == list(range(8)) and metrics["label"].count(1.0) == 4
        assert len(channels) == 8 and channels.max() < 384
    assert session.parents[4].name == "ibl_brain_wide_map_2025"
    note = json.loads((session.parents[4] / "simulation.json").read_text())
    assert list(note) == [session.relative_to(session.parents[4]).as_posix()]


def test_the_wheel_moves_by_steps_of_its_encoder_and_rests_between(tmp_path):
    (session,) = simulate_ibl_sessions(tmp_path, seconds=60, n_units=1, n_probes=1)
    times, position = (np.load(session / f"alf/_ibl_wheel.{name}.npy") for name in ("timestamps", "position"))
    steps = position / (2 * np.pi / 2048)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert (np.diff(times) > 0).all() and np.diff(times).max() > 0.2 and np.abs(np.diff(steps)).max() < 40


def test_units_follow_the_wheel(tmp_path):
    (session,) = simulate_ibl_sessions(tmp_path, seconds=200, n_units=16, n_probes=1)
    alf = session / "alf"
    times, position = (np.load(alf / f"_ibl_wheel.{name}.npy") for name in ("timestamps", "position"))
    edges = np.arange(0, 200.05, 0.1)
    velocity = np.diff(np.interp(edges, times, position))
    spikes, clusters = (np.load(alf / f"probe00/pykilosort/spikes.{name}.npy") for name in ("times", "clusters"))
    counts = np.stack([np.histogram(spikes[clusters == unit], edges)[0] for unit in range(32)], axis=1)
    train, test = slice(0, 1500), slice(1500, None)
    design = np.column_stack([np.log1p(counts), np.ones(len(counts))])
    weights = np.linalg.lstsq(design[train], velocity[train], rcond=None)[0]
    assert np.corrcoef(design[test] @ weights, velocity[test])[0, 1] > 0.6


def test_same_seed_same_values_another_animal_each_session(tmp_path):
    first, second = simulate_ibl_sessions(tmp_path / "a", seconds=20, n_units=3, n_sessions=2)
    again = simulate_ibl_sessions(tmp_path / "b", seconds=20, n_units=3, n_sessions=2)
    name = "alf/probe00/pykilosort/spikes.times.npy"
    assert (first / name).read_bytes() == (again[0] / name).read_bytes() != (second / name).read_bytes()


def test_uuids_in_the_names_on_demand(tmp_path):
    (session,) = simulate_ibl_sessions(tmp_path, seconds=20, n_units=2, with_uuids=True)
    assert all(re.search(r"\.[0-9a-f]{8}-[0-9a-f-]{27}\.(npy|pqt)$", name) for name in files(session))


def test_recorded_files_are_never_replaced(tmp_path):
    (session,) = simulate_ibl_sessions(tmp_path, seconds=20, n_units=2)
    simulate_ibl_sessions(tmp_path, seconds=20, n_units=3)  # simulated ones are
    assert np.load(session / "alf/probe00/pykilosort/clusters.channels.npy").shape == (6,)
    (session.parents[4] / "simulation.json").unlink()
    with pytest.raises(InputError, match="never replace recorded ones"):
        simulate_ibl_sessions(tmp_path, seconds=20, n_units=2)


@pytest.mark.parametrize("wrong", [{"n_units": 0}, {"seconds": 3}, {"n_probes": 3}, {"n_sessions": 0}])
def test_unusable_settings_are_refused(tmp_path, wrong):
    with pytest.raises(InputError, match="Correct the settings"):
        simulate_ibl_sessions(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path):
    options = ["--seconds", "20", "--units", "2", "--probes", "1"]
    result = CliRunner().invoke(main, ["simulate-ibl", str(tmp_path), *options])
    assert result.exit_code == 0 and "Simulated sessions lie in" in result.output
    assert not list(tmp_path.rglob("probe01"))
