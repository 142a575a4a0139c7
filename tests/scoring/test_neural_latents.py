"""The Neural Latents Benchmark: its files are read on its grid; nothing hidden is seen by what is predicted."""

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.cli.main import main
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.datasets.readers import Notes, read_mc_maze
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.jobs.submit_nlb import submit_nlb
from neurobridge_tb.report.run_sections import run_sections
from neurobridge_tb.report.runs import find_runs
from neurobridge_tb.scoring.submissions.neural_latents import BASELINE, write_nlb_rates

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
from nlb_files import HELD_OUT, N_UNITS, simulate_mc_maze  # noqa: E402

HELD_IN = N_UNITS - len(HELD_OUT)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return simulate_mc_maze(tmp_path_factory.mktemp("nwb"))


@pytest.fixture(scope="module")
def root(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("nlb")
    result = CliRunner().invoke(main, ["import", "nlb", *map(str, files), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def tiny_model(dataset, **changed):
    torch.manual_seed(0)
    size = dict(sequence_length=0.9, latent_step=0.1, bin_size=0.02, dim=32, depth=1, dim_head=16, num_factors=8)
    model = NeuroBridgeModel(**size | changed)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    return model.eval()


def test_both_files_make_one_recording(root):
    dataset = BinnedRecordings(root)
    assert dataset.recording_ids == ["mc_maze_small"]
    recording = dataset.get_recording("mc_maze_small")
    assert np.flatnonzero(recording.units.held_out).tolist() == list(HELD_OUT)
    assert recording.units.id[0] == "mc_maze_small/1000" and recording.hand.velocity.shape[1] == 2
    split = np.asarray(recording.trials.nlb_split).astype(str)
    assert {name: int((split == name).sum()) for name in ("train", "val", "test")} == {"train": 32, "val": 8, "test": 6}
    test = recording.trials.start[split == "test"][0]
    late = recording.spikes.unit_index[recording.spikes.timestamps > test]
    assert len(late) and not np.isin(late, HELD_OUT).any()


def test_splits_are_windows_around_the_onset_and_leave_the_test_trials_out(root):
    dataset = BinnedRecordings(root)
    trials = dataset.get_recording("mc_maze_small").trials
    split = np.asarray(trials.nlb_split).astype(str)
    windows = {name: dataset.get_sampling_intervals(name)["mc_maze_small"] for name in ("train", "valid", "test")}
    assert [len(its) for its in windows.values()] == [29, 3, 8]
    for its in windows.values():
        np.testing.assert_allclose(its.end - its.start, 0.9)
        np.testing.assert_allclose(its.start / 0.005, np.round(its.start / 0.005), atol=1e-6)
    onset = trials.move_onset[split == "val"]
    assert ((windows["test"].start + 0.25 - onset >= -1e-9) & (windows["test"].start + 0.25 - onset < 0.005)).all()


def test_what_is_hidden_is_not_seen(root, tmp_path):
    """The same predictions whatever the held-out units, and all units in the last 0.2 s, did."""
    dataset = BinnedRecordings(root)
    model = tiny_model(dataset)
    spikes = dataset.get_recording("mc_maze_small").spikes
    hidden = np.isin(spikes.unit_index, HELD_OUT)
    for name in ("train", "valid", "test"):
        start = dataset.get_sampling_intervals(name)["mc_maze_small"].start[:, None]
        later = (spikes.timestamps >= start + 0.72) & (spikes.timestamps < start + 0.9)  # of bins of 20 ms too
        hidden |= later.any(0)
    shutil.copy(root / "mc_maze_small.h5", tmp_path)
    with h5py.File(tmp_path / "mc_maze_small.h5", "r+") as file:
        file["spikes/unit_index"][...] = np.where(hidden, HELD_OUT[0], spikes.unit_index)
    written = []
    for number, data in enumerate((dataset, BinnedRecordings(tmp_path, recording_ids=["mc_maze_small"]))):
        path = tmp_path / f"{number}.out"
        write_nlb_rates(model, data, "mc_maze_small", out=path)
        with h5py.File(path) as file:
            written.append({name: values[()] for name, values in file["mc_maze_small_20"].items()})
    for name, values in written[0].items():
        np.testing.assert_array_equal(values, written[1][name])


@pytest.mark.parametrize("bin_size, group", [(0.005, "mc_maze_small"), (0.02, "mc_maze_small_20")])
def test_a_submission_has_the_scorers_form(root, tmp_path, bin_size, group):
    dataset = BinnedRecordings(root)
    model = tiny_model(dataset, bin_size=bin_size)
    scores = write_nlb_rates(model, dataset, "mc_maze_small", out=tmp_path / "val.h5")
    assert all(set(its) == {"co-bps", "fp-bps"} and abs(its["co-bps"]) < 1 for its in scores.values())
    seen, forward = round(0.7 / bin_size), round(0.2 / bin_size)
    with h5py.File(tmp_path / "val.h5") as file:
        shapes = {name: values.shape for name, values in file[group].items()}
        assert all((values[()] > 0).all() for values in file[group].values())
    assert shapes == {
        "train_rates_heldin": (32, seen, HELD_IN),
        "train_rates_heldout": (32, seen, len(HELD_OUT)),
        "eval_rates_heldin": (8, seen, HELD_IN),
        "eval_rates_heldout": (8, seen, len(HELD_OUT)),
        "eval_rates_heldin_forward": (8, forward, HELD_IN),
        "eval_rates_heldout_forward": (8, forward, len(HELD_OUT)),
    }
    assert write_nlb_rates(model, dataset, "mc_maze_small", out=tmp_path / "test.h5", trials="test") == {}
    with h5py.File(tmp_path / "test.h5") as file:
        assert file[group]["train_rates_heldin"].shape[0] == 40 and file[group]["eval_rates_heldout"].shape[0] == 6


def test_pretraining_and_submission_by_command_beat_the_mean_rate(root, tmp_path):
    pretrain(
        dataset="nlb", window="nlb", model="tiny", **{"dataset.root": str(root), "model.bin_size": 0.02},
        run_dir=str(tmp_path / "run"), **{"trainer.max_epochs": 2, "loader.batch_size": 8, "optimizer.lr": 3e-3},
    )  # fmt: skip
    run = submit_nlb(
        **{"dataset.root": str(root)}, pretrained=str(tmp_path / "run" / "model"), run_dir=str(tmp_path / "submit")
    )
    row, baseline = read_metrics(run)["rows"]
    assert row["model"] == "NeuroBridge" and row["co-bps"] > 0.05, row
    assert baseline["model"] == BASELINE and baseline["co-bps"] > 0.05, baseline
    assert (run / "mc_maze_small.h5").exists()
    (section,) = run_sections(find_runs(run))
    assert section["title"] == "Neural Latents Benchmark" and "co-bps" in section["runs"][0]["table"].columns


def test_what_does_not_fit_is_refused(files, root, tmp_path):
    train, test = files
    with pytest.raises(InputError, match="Name first the file of training trials"):
        read_mc_maze(train, train)
    with pytest.raises(InputError, match="training trials in .*desc-test"):
        read_mc_maze(test)
    with pytest.raises(InputError, match="heldout"):
        read_mc_maze(_without_held_out(tmp_path))
    dataset = BinnedRecordings(root)
    with pytest.raises(InputError, match="window=nlb"):
        write_nlb_rates(tiny_model(dataset, sequence_length=1.0), dataset, "mc_maze_small", out=tmp_path / "x.h5")
    recording = next(path for path in dataset.paths if path.stem == "mc_maze_small")
    with pytest.raises(InputError, match="a submission of this set, or nothing, at"):
        write_nlb_rates(tiny_model(dataset), dataset, "mc_maze_small", out=recording)
    notes = Notes()
    alone = read_mc_maze(train, notes=notes)
    assert "test" not in np.asarray(alone.trials.nlb_split).astype(str) and notes.taken


def _without_held_out(folder):
    from lab_files import write_nwb

    return write_nwb(folder / "other.nwb")
