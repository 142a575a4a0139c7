"""Decoding a series: a behaviour that drives the units is found, in counts and in latents; shuffled, it is not."""

import shutil

import h5py
import numpy as np
import pytest
from small_models import save_encoder

from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.decode import decode
from neurobridge_tb.jobs.finetune import finetune


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    rng = np.random.default_rng(0)
    times = np.arange(2400) * 0.05
    velocity = np.stack([np.sin(2 * np.pi * times / 1.3), np.cos(2 * np.pi * times / 2.1)], axis=1)
    counts = rng.poisson(np.exp(velocity @ rng.normal(0, 0.7, (2, 20)) + 0.3)).astype(np.uint8)
    shuffled = velocity[rng.permutation(len(velocity))]
    data = build_recording(
        brainset_id="test",
        session_id="reach",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(20)]},
        counts=(counts, 0.05),
        behavior={"hand_velocity": (times + 0.025, velocity), "wheel_velocity": (times + 0.025, shuffled[:, 0])},
        splits={"train": ([0.0], [80.0]), "valid": ([80.0], [100.0]), "test": ([100.0], [119.9])},
        simulated=True,
    )
    save_recording(data, folder / "reach.h5")
    save_encoder(folder, sequence_length=1.0, latent_step=0.125, num_latents_per_step=2, num_factors=16)
    return folder


def run(root, out, target):
    config = compose_config(
        "decode",
        [f"dataset.root={root}", f"pretrained={root}/model", f"run_dir={out}", f"target={target}", "history=3"],
    )
    return {row["decoder"]: row["R2 of columns"] for row in read_metrics(decode(config))["rows"]}


def test_a_behaviour_that_drives_the_units_is_found(root, tmp_path):
    rows = run(root, tmp_path, "hand_velocity_2d")
    assert set(rows) == {"latents", "latents of random weights", "spike counts, 3 bins"}
    assert all(len(r2) == 2 for r2 in rows.values())
    assert min(rows["spike counts, 3 bins"]) > 0.6
    assert min(rows["latents"]) > 0.3


def test_a_shuffled_behaviour_is_not(root, tmp_path):
    assert all(abs(r2) < 0.1 for values in run(root, tmp_path, "wheel_velocity").values() for r2 in values)


def test_a_behaviour_that_was_not_recorded_is_named(root, tmp_path):
    with pytest.raises(InputError, match="running.running_speed"):
        run(root, tmp_path, "running_speed")


@pytest.mark.parametrize(
    ("rows", "value", "message"),
    [
        (slice(0, 1600), np.nan, "in the windows of 'train'[\\s\\S]*none that is known"),
        (slice(2000, 2400), np.nan, "in the windows of 'test'[\\s\\S]*none that is known"),
        (slice(None), 1.0, "in the windows of 'train'[\\s\\S]*one value"),
    ],
)
@pytest.mark.parametrize("job", ["decode", "finetune"])
def test_a_split_in_which_the_behaviour_is_not_known_or_never_changes_is_named(
    root, tmp_path, job, rows, value, message
):
    with h5py.File(shutil.copy(root / "reach.h5", tmp_path / "reach.h5"), "r+") as file:
        file["hand/velocity"][rows] = value
    settings = [f"dataset.root={tmp_path}", f"pretrained={root}/model", f"run_dir={tmp_path}/run"]
    settings += ["target=hand_velocity_2d", *(["rows=[ridge]"] if job == "finetune" else [])]
    with pytest.raises(InputError, match=message):
        {"decode": decode, "finetune": finetune}[job](compose_config(job, settings))


def test_where_tracking_is_lost_bins_are_left_out_and_said(root, tmp_path):
    recording = BinnedRecordings(root).get_recording("reach")
    times, velocity = recording.hand.timestamps, recording.hand.velocity.copy()
    velocity[(times > 30) & (times < 31)] = np.nan
    velocity[(times > 110) & (times < 112)] = np.nan
    late = times > 10
    data = build_recording(
        brainset_id="test",
        session_id="reach",
        subject_id="subject",
        units={"id": recording.units.id},
        counts=(recording.spike_counts.value[:], 0.05),
        behavior={"hand_velocity": (times[late], velocity[late])},
        splits={"train": ([0.0], [80.0]), "valid": ([80.0], [100.0]), "test": ([100.0], [119.9])},
    )
    save_recording(data, tmp_path / "lost" / "reach.h5")
    settings = {"root": str(tmp_path / "lost"), "pretrained": f"{root}/model", "history": 3, "run_dir": str(tmp_path)}
    metrics = read_metrics(decode(target="hand.velocity", **settings))
    assert "of 400 test bins are left out" in " ".join(metrics["notes"]) and 330 < metrics["examples"] < 370
    assert min(metrics["rows"][-1]["R2 of columns"]) > 0.6


def test_where_activity_is_absent_windows_are_left_out_and_nothing_counts_as_silent(root, tmp_path):
    recording = BinnedRecordings(root).get_recording("reach")
    counts = recording.spike_counts.value[:].astype(np.float32)
    counts[600:700] = counts[2100:2140] = np.nan  # 5 s of training, 2 s of the test: all units
    counts[300:900, 4] = np.nan
    counts[2200:2205] = np.nan
    data = build_recording(
        brainset_id="test",
        session_id="reach",
        subject_id="subject",
        units={"id": recording.units.id},
        counts=(counts, 0.05),
        behavior={"hand_velocity": (recording.hand.timestamps, recording.hand.velocity)},
        splits={"train": ([0.0], [80.0]), "valid": ([80.0], [100.0]), "test": ([100.0], [119.9])},
    )
    save_recording(data, tmp_path / "blanked" / "reach.h5")
    settings = {"pretrained": f"{root}/model", "history": 3, "target": "hand.velocity"}
    blanked = read_metrics(decode(root=str(tmp_path / "blanked"), run_dir=str(tmp_path / "a"), **settings))
    whole = read_metrics(decode(root=str(root), run_dir=str(tmp_path / "b"), **settings))
    assert whole["examples"] - blanked["examples"] == 40 + 20
    for ours, theirs in zip(blanked["rows"], whole["rows"], strict=True):
        assert ours["R2"]["value"] > theirs["R2"]["value"] - 0.05
