"""Forecasting end to end on small recordings: it learns, resumes, scores units it never saw, and names faults."""

import json
import runpy
import shutil
import sys

import h5py
import numpy as np
import pytest
from omegaconf import OmegaConf

from neurobridge_tb import NeuroHorizonModel
from neurobridge_tb._upstream import Interval
from neurobridge_tb.data.forecast_windows import ForecastSampler
from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.forecast import forecast

BIN = 0.05


def config(root, run_dir, *overrides):
    return compose_config(
        "forecast",
        [
            "forecaster=tiny", f"dataset.root={root}", f"run_dir={run_dir}", "model.bin_size=0.05", "model.history=0.5",
            "model.horizon=0.4", "loader.batch_size=16", "stride=8", "trainer.max_epochs=1",
            "trainer.enable_progress_bar=false", "device=cpu", *overrides,
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four recordings of trials of 1.2 s; rates follow the trial's course, of busy units up and of others down."""
    folder = tmp_path_factory.mktemp("forecast")
    rng = np.random.default_rng(0)
    for number, n_units in enumerate((14, 10, 12, 12)):
        starts = np.arange(60) * 1.2
        direction = rng.integers(0, 2, 60)
        course = np.sin(np.pi * (np.arange(24) + 0.5) / 24) * 2.5
        sign = np.where(np.arange(n_units) % 2, 1.0, -1.0)
        log_rates = (2.0 * direction - 1)[:, None, None] * course[:, None] * sign * 0.6 + 0.7 * sign - 0.2
        counts = rng.poisson(np.exp(log_rates)).reshape(-1, n_units).astype(np.uint8)
        data = build_recording(
            brainset_id="test", session_id=f"s{number}", subject_id="subject",
            units={"id": [f"s{number}/{i}" for i in range(n_units)]}, counts=(counts, BIN),
            trials={"start": starts, "end": starts + 1.2, "go_time": starts + 0.6, "direction": direction},
            splits={k: (starts[i], starts[i] + 1.2) for k, i in
                    (("train", slice(0, 40)), ("valid", slice(40, 50)), ("test", slice(50, 60)))},
            simulated=True,
        )  # fmt: skip
        save_recording(data, folder / f"s{number}.h5")
    return folder


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    return forecast(
        config(
            root, tmp_path_factory.mktemp("run"), "trainer.max_epochs=6", "optimizer.lr=1e-2", "unseen=[s3]",
            "model.unit_identity=features", "reference_seconds=30", "psth_condition=direction", "glm_horizons=[0.1]",
        )
    )  # fmt: skip


@pytest.fixture
def no_figures(monkeypatch):
    """They take most of a small run's time."""
    monkeypatch.setattr("neurobridge_tb.jobs.forecast.save_figure", lambda *_: None)


def test_it_beats_the_mean_rate_rolled_out_also_for_units_never_seen(finished):
    metrics = read_metrics(finished)
    rows = {(row["recordings"], row["forecast"]): row for row in metrics["rows"]}
    assert metrics["simulated"] and metrics["unseen"] == ["s3"]
    assert rows["trained", "rolled out"]["bits/spike"] > 0.3
    assert rows["unseen", "rolled out"]["bits/spike"] > 0.2
    for group in ("trained", "unseen"):
        assert len(rows[group, "rolled out"]["bits/spike by bin"]) == 8
        assert np.isfinite(rows[group, "rolled out"]["PSTH R2 (median unit)"])
        assert np.isfinite(rows[group, "last smoothed rate"]["rate correlation"])
        assert np.isfinite(rows[group, "Poisson GLM, 2 bins ahead"]["bits/spike"])
    forced = rows["trained", "one bin ahead (each bin before observed)"]["bits/spike by bin"]
    assert forced[0] == pytest.approx(rows["trained", "rolled out"]["bits/spike by bin"][0], abs=1e-5)


def test_the_exported_model_figures_and_arrays_are_complete(finished):
    assert NeuroHorizonModel.load_pretrained(finished / "model").config["horizon"] == 0.4
    for group, n_units in (("trained", 36), ("unseen", 12)):
        with np.load(finished / f"forecast_{group}.npz", allow_pickle=False) as arrays:
            assert arrays["unit_id"].shape == arrays["bits_per_spike"].shape == (n_units,)
            assert (arrays["mean_rate"] > 0).all()
            assert arrays["example_rates"].shape == arrays["example_future"].shape
            assert arrays["window_gain"].shape[1:] == (5, 8) and len(arrays["forecasts"]) == 5
        for name in ("rasters", "decay", "units"):
            assert (finished / f"forecast_{group}_{name}.png").stat().st_size > 5000


def test_a_finished_run_is_scored_again_alike(finished, no_figures):
    before = read_metrics(finished)["rows"]
    saved = json.loads((finished / "model" / "config.json").read_text())
    again = forecast(config_of(finished))
    assert json.loads((again / "model" / "config.json").read_text()) == saved
    for old, new in zip(before, read_metrics(again)["rows"], strict=True):
        assert new["forecast"] == old["forecast"]
        assert new["bits/spike"] == pytest.approx(old["bits/spike"], abs=0.02)  # the GLM's windows are drawn anew


def config_of(run):
    return OmegaConf.load(run / "config.yaml")


def test_trial_windows_and_a_choice_of_units(root, tmp_path, no_figures):
    run = forecast(
        config(root, tmp_path, "windows=trial", "align=go_time", "dataset.recording_ids=[s0]", "units=[s0/3, s0/5]")
    )
    with np.load(run / "forecast_trained.npz", allow_pickle=False) as arrays:
        assert arrays["unit_id"].tolist() == ["s0/3", "s0/5"]


@pytest.mark.parametrize("windows", ["continuous", "trial"])
def test_windows_whose_past_has_no_value_are_left_out(windows, root, tmp_path, no_figures):
    shutil.copy(root / "s0.h5", tmp_path / "s0.h5")
    with h5py.File(tmp_path / "s0.h5", "r+") as file:
        counts = file["spike_counts/value"][:].astype(np.float32)
        for first in (5 * 24, 55 * 24):  # the first 0.7 s of a trial of training, and of one of the test
            counts[first : first + 14] = np.nan
        del file["spike_counts/value"]
        file["spike_counts/value"] = counts
    run = forecast(config(tmp_path, tmp_path / "run", f"windows={windows}", "loader.batch_size=8", "stride=2"))
    assert all(np.isfinite(row["bits/spike"]) for row in read_metrics(run)["rows"])


def test_events_are_trained_on_too(tmp_path, no_figures):
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 40, 1500))
    save_recording(
        build_recording(
            brainset_id="test", session_id="e", subject_id="s", units={"id": [f"u{i}" for i in range(5)]},
            spikes=(times, rng.integers(0, 5, 1500)), end=40.0, simulated=True,
            splits={"train": ([0.0], [25.0]), "valid": ([25.0], [32.0]), "test": ([32.0], [40.0])},
        ),
        tmp_path / "e.h5",
    )  # fmt: skip
    run = forecast(config(tmp_path, tmp_path / "run", "model.modality=spikes"))
    assert "PSTH R2 (median unit)" not in read_metrics(run)["rows"][0]  # no trials


def test_a_hydra_script_does_the_same_job(root, tmp_path, no_figures, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "import hydra\n"
        "from neurobridge_tb.jobs.forecast import forecast\n"
        "hydra.main(version_base='1.3', config_path=None, config_name='forecast')(forecast)()\n"
    )
    run = tmp_path / "run"
    overrides = config(root, run).command.split()[2:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), *overrides, "dataset.recording_ids=[s1]"])
    runpy.run_path(str(script), run_name="__main__")
    assert read_metrics(run)["command"].startswith("python ")


def test_windows_stay_inside_their_interval_and_lie_on_its_bins():
    intervals = {"r": Interval(start=np.array([0.0, 3.0]), end=np.array([2.0, 3.9]))}
    settings = dict(windows="continuous", n_past=6, n_future=4, bin_size=0.1)
    every = list(ForecastSampler(intervals, **settings))
    assert len(every) == 14 + 3
    assert all((0 <= w.start and w.end <= 2 + 1e-9) or (3 <= w.start + 1e-9 and w.end <= 3.9 + 1e-9) for w in every)
    lengths = np.array([w.end - w.start for w in every])
    assert lengths.max() == pytest.approx(1.0) and lengths.min() == pytest.approx(0.7)  # at least one bin ahead
    shuffled = ForecastSampler(intervals, **settings, stride=5, shuffle=True)
    epochs = [sorted(w.start for w in shuffled) for _ in range(8)]
    assert {len(e) for e in epochs} == {len(shuffled)} and len({tuple(e) for e in epochs}) > 1
    on_bins = (np.concatenate(epochs) / 0.1) % 1
    assert np.minimum(on_bins, 1 - on_bins).max() < 1e-6
    anchored = ForecastSampler(intervals, **(settings | {"windows": "trial"}), anchors={"r": np.array([0.3, 1.0, 1.8])})
    assert [(w.start, w.end) for w in anchored] == [(pytest.approx(0.4), pytest.approx(1.4))]
    by_trial = ForecastSampler(intervals, **(settings | {"windows": "trial"}))
    strided = [ForecastSampler(intervals, **settings, stride=stride) for stride in (2, 5, 15)]
    for sampler in (anchored, by_trial, *strided):  # the length is computed
        assert len(sampler) == len(list(sampler))


def test_faults_are_named(root, tmp_path):
    with pytest.raises(InputError, match="a horizon of a whole number of bins"):
        forecast(config(root, tmp_path / "a", "model.horizon=0.42"))
    with pytest.raises(InputError, match="the longest of 1.2 s"):  # a past beyond the recording's trials
        forecast(config(root, tmp_path / "b", "model.history=1.5"))
    with pytest.raises(InputError, match=r"0.5 s of past and 0.8 s to forecast(.|\n)*the longest of 1.2 s"):
        forecast(config(root, tmp_path / "j", "model.horizon=0.8"))  # a horizon beyond them
    with pytest.raises(InputError, match=r"1 s to forecast around an anchor(.|\n)*the longest of 1.2 s"):
        forecast(config(root, tmp_path / "c", "model.horizon=1.0", "windows=trial", "align=go_time"))
    with pytest.raises(InputError, match="column 'cue' of trials"):
        forecast(config(root, tmp_path / "d", "windows=trial", "align=cue"))
    with pytest.raises(InputError, match="bins of 0.02 s, those of the model"):
        forecast(config(root, tmp_path / "e", "model.bin_size=0.02"))
    with pytest.raises(InputError, match="unit_identity=features"):
        forecast(config(root, tmp_path / "f", "unseen=[s1]"))
    with pytest.raises(InputError, match="units=.ids"):
        forecast(config(root, tmp_path / "g", "units=[nobody]"))
    with pytest.raises(InputError, match="glm_horizons up to the model's, 0.4 s"):
        forecast(config(root, tmp_path / "k", "glm_horizons=[0.05,1.0]"))
    with pytest.raises(InputError, match="column 'cue' of trials"):
        forecast(config(root, tmp_path / "l", "psth_condition=cue"))
    assert not list(tmp_path.glob("*/checkpoints"))  # nothing was trained in vain
    with pytest.raises(InputError, match="reference_seconds above 0"):
        forecast(config(root, tmp_path / "h", "model.unit_identity=features", "reference_seconds=0"))
    with pytest.raises(InputError, match=r"at least 1 s(.|\n)*0.4 s"):
        forecast(config(root, tmp_path / "m", "model.unit_identity=features", "reference_seconds=0.4"))
    with pytest.raises(InputError, match=r"0.6 s of past and 0.6 s to forecast(.|\n)*the longest of 1.1 s"):
        short = ["unseen=[s1]", "reference_seconds=1.1", "model.history=0.6", "model.horizon=0.6"]
        forecast(config(root, tmp_path / "n", "model.unit_identity=features", *short))


def test_a_recording_of_one_training_trial_cannot_play_the_stranger(root, tmp_path):
    counts = np.random.default_rng(0).poisson(1.0, (120, 5)).astype(np.uint8)
    starts = np.arange(5) * 1.2
    parts = {"train": slice(0, 1), "valid": slice(1, 3), "test": slice(3, 5)}
    recording = build_recording(
        brainset_id="test", session_id="few", subject_id="s", units={"id": [f"few/{i}" for i in range(5)]},
        counts=(counts, BIN), splits={k: (starts[i], starts[i] + 1.2) for k, i in parts.items()},
    )  # fmt: skip
    save_recording(recording, tmp_path / "few.h5")
    with pytest.raises(InputError, match=r"training intervals of few(.|\n)*1 intervals, 1.2 s(.|\n)*strangers=false"):
        forecast(config(tmp_path, tmp_path / "run", "model.unit_identity=features", "loader.batch_size=1"))


def test_each_recording_is_the_unseen_one_once(root, tmp_path, no_figures):
    overrides = ["model.unit_identity=features", "reference_seconds=30", "stride=16"]
    recordings = "dataset.recording_ids=[s0, s1]"
    run = forecast(config(root, tmp_path / "each", *overrides, recordings, "unseen=each"))
    rows = {row["unseen"]: row for row in read_metrics(run)["rows"]}
    assert list(rows) == ["s0", "s1", "mean"]
    for name in ("s0", "s1"):
        assert read_metrics(run / name)["unseen"] == [name]
        (alone,) = (
            row for row in read_metrics(run / name)["rows"]
            if (row["recordings"], row["forecast"]) == ("unseen", "rolled out")
        )  # fmt: skip
        found = rows[name]["scores"]["rolled out"]
        assert found["value"] == pytest.approx(alone["bits/spike"]) and found["low"] < found["value"] < found["high"]
        for units in (">= 1 training spike", ">= 10 training spikes"):
            assert found[units] == pytest.approx(alone[f"bits/spike ({units})"])
    mean = rows["mean"]["scores"]
    assert mean["rolled out"]["value"] == pytest.approx(
        np.mean([rows[r]["scores"]["rolled out"]["value"] for r in ("s0", "s1")])
    )
    ((name, difference),) = rows["mean"]["difference"].items()
    baseline = name.removeprefix("rolled out - ")
    assert difference["value"] == pytest.approx(mean["rolled out"]["value"] - mean[baseline]["value"])
    with pytest.raises(InputError, match="at least two recordings"):
        forecast(config(root, tmp_path / "one", *overrides, "dataset.recording_ids=[s0]", "unseen=each"))


def test_an_unseen_recording_of_other_bins_is_found_before_training(root, tmp_path):
    shutil.copy(root / "s0.h5", tmp_path)
    splits = {"train": ([0.0], [30.0]), "valid": ([30.0], [40.0]), "test": ([40.0], [60.0])}
    counts = np.random.default_rng(0).poisson(1.0, (600, 5)).astype(np.uint8)
    units = {"id": [f"wide/{i}" for i in range(5)]}
    recording = build_recording(
        brainset_id="test", session_id="wide", subject_id="s", units=units, counts=(counts, 0.1), splits=splits
    )
    save_recording(recording, tmp_path / "wide.h5")
    with pytest.raises(InputError, match=r"bins of 0.05 s, those of the model(.|\n)*bins of 0.1 s in recording wide"):
        forecast(config(tmp_path, tmp_path / "run", "model.unit_identity=features", "unseen=[wide]"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_is_not_resumed_with_other_bins(root, finished):
    with pytest.raises(InputError, match=r"other settings(.|\n)*model.bin_size \(0.05, now 0.1\)"):
        forecast(config_of(finished), bin_size=0.1)


def test_a_reference_window_without_spikes_is_refused(tmp_path):
    spikes = np.arange(20.5, 40.5, 0.02), np.arange(1000) % 3
    splits = {"train": ([0.0], [25.0]), "valid": ([25.0], [32.0]), "test": ([32.0], [40.0])}
    units = {"id": ["u0", "u1", "u2"]}
    recording = build_recording(
        brainset_id="test", session_id="late", subject_id="s", units=units, spikes=spikes, end=41.0, splits=splits
    )
    save_recording(recording, tmp_path / "late.h5")
    with pytest.raises(InputError, match=r"spikes in the reference window, 0.000 to 20.000 s(.|\n)*none of any unit"):
        forecast(
            config(
                tmp_path,
                tmp_path / "run",
                "model.modality=spikes",
                "model.unit_identity=features",
                "reference_seconds=20",
            )
        )
