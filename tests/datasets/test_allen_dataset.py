"""``AllenVisualCodingNeuropixels2019`` as a torch_brain Dataset: splits, upstream's POYO, pretraining by command."""

import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch_brain.batching import collate
from torch_brain.models import POYO
from torch_brain.pipeline import runner
from torch_brain.samplers import RandomFixedWindowSampler, TrialSampler

from neurobridge_tb._upstream import DatasetIndex
from neurobridge_tb.datasets import AllenVisualCodingNeuropixels2019, is_simulated
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.simulation import simulate_allen_session

BRAINSET = "allen_visual_coding_neuropixels_2019"
PIPELINE = Path(__file__).parents[2] / "brainsets_pipelines" / BRAINSET / "pipeline.py"
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two prepared sessions, the second with images held out."""
    workspace = tmp_path_factory.mktemp("allen")
    for session, split_by in ((1, "presentation"), (2, "image")):
        simulate_allen_session(workspace, session_id=session, n_units=40, seconds=200, rate=4)
        options = [f"--raw-dir={workspace / 'raw'}", f"--processed-dir={workspace / 'processed'}"]
        options += [f"--single={session}", f"--split-by={split_by}"]
        with patch.object(sys, "argv", ["runner", str(PIPELINE), *options]):
            runner.run()
    return workspace / "processed"


def test_recordings_and_units_of_all_sessions_or_of_those_chosen(root):
    dataset = AllenVisualCodingNeuropixels2019(root)
    assert dataset.recording_ids == ["1", "2"] and is_simulated(dataset)
    first, second = (AllenVisualCodingNeuropixels2019(root, recording_ids=[session]) for session in (1, "2"))
    assert sorted(first.get_unit_ids() + second.get_unit_ids()) == dataset.get_unit_ids()
    assert not set(first.get_unit_ids()) & set(second.get_unit_ids())
    assert dataset.compute_average_firing_rates().firing_rate.between(0.1, 50).all()


def test_stimuli_windows_lie_in_one_split(root):
    dataset = AllenVisualCodingNeuropixels2019(root, recording_ids=["1"])
    for split in SPLITS:
        intervals = dataset.get_sampling_intervals(split)
        generator = torch.Generator().manual_seed(0)
        sampler = RandomFixedWindowSampler(sampling_intervals=intervals, window_length=1.0, generator=generator)
        found = [set(dataset[index].natural_scenes.split) for index in sampler]
        assert set().union(*found) <= {split}
        assert len(found) > 5 and any(found)


def test_natural_scenes_are_sampled_one_by_one(root):
    dataset = AllenVisualCodingNeuropixels2019(root, split_type="natural_scenes")
    shown = {}
    for split in SPLITS:
        sampler = TrialSampler(sampling_intervals=dataset.get_sampling_intervals(split))
        windows = [dataset[index] for index in sampler]
        middle = [w.natural_scenes.timestamps.searchsorted(0.0) for w in windows]
        assert all(abs(w.natural_scenes.timestamps[i] - 0.125) < 1e-6 for w, i in zip(windows, middle, strict=True))
        assert {w.natural_scenes.split[i] for w, i in zip(windows, middle, strict=True)} == {split}
        shown[split] = {
            w.natural_scenes.image_id[i]
            for w, i in zip(windows, middle, strict=True)
            if w.session.id == "2" and not w.natural_scenes.blank[i]
        }
    assert all(shown.values()) and not shown["train"] & (shown["valid"] | shown["test"])


def test_whole_recordings_and_no_split(root):
    dataset = AllenVisualCodingNeuropixels2019(root, split_type=None)
    assert dataset.get_sampling_intervals()["1"].end[-1] == pytest.approx(200, abs=0.5)
    with pytest.raises(InputError, match="split_type='stimuli' or 'natural_scenes'"):
        dataset.get_sampling_intervals("train")
    with pytest.raises(InputError, match="'images'"):
        AllenVisualCodingNeuropixels2019(root, split_type="images")


def test_not_prepared_names_the_command(tmp_path):
    with pytest.raises(InputError, match=f"Run: brainsets prepare {BRAINSET}"):
        AllenVisualCodingNeuropixels2019(tmp_path)


def test_root_comes_from_the_brainsets_config(root, monkeypatch):
    monkeypatch.setattr("neurobridge_tb.datasets.allen.get_processed_dir", lambda: str(root))
    assert AllenVisualCodingNeuropixels2019().recording_ids == ["1", "2"]


def test_upstreams_poyo_learns_running_speed_from_it(root):
    """``init_vocabs``, ``tokenize``, collate and a few steps: POYO reads the recording as it is."""
    torch.manual_seed(0)
    dataset = AllenVisualCodingNeuropixels2019(root)
    model = POYO(sequence_length=1.0, latent_step=0.25, num_latents_per_step=8, dim_out=1, dim=32, depth=1, dim_head=16)
    model.init_vocabs(dataset)
    assert set(dataset.get_unit_ids()) <= set(model.unit_emb.vocab)

    def with_target(data):
        speed = data.running.running_speed[:48] / 30  # some windows have a sample more than others
        return model.tokenize(data) | {"output_timestamps": data.running.timestamps[:48], "target": speed}

    dataset.transform = with_target
    intervals = dataset.get_sampling_intervals("train")
    sampler = RandomFixedWindowSampler(
        sampling_intervals=intervals, window_length=1.0, generator=torch.Generator().manual_seed(0)
    )
    batch = collate([dataset[index] for index in list(sampler)[:16]])
    target = batch.pop("target").float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.mse_loss(model(**batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    assert model.unit_emb.weight.grad.any()


def test_windows_hold_what_the_recording_holds_then(root):
    dataset = AllenVisualCodingNeuropixels2019(root, recording_ids=["1"])
    whole = dataset.get_recording("1")
    window = dataset[DatasetIndex("1", 50.0, 51.0)]
    inside = (whole.spikes.timestamps >= 50) & (whole.spikes.timestamps < 51)
    np.testing.assert_allclose(window.spikes.timestamps, whole.spikes.timestamps[inside] - 50, atol=1e-9)
    np.testing.assert_array_equal(window.spikes.unit_index, whole.spikes.unit_index[inside])
    assert len(window.running.timestamps) == 60


def test_the_command_pretrains_on_it(root, tmp_path):
    overrides = [
        "dataset=allen", f"dataset.root={root}", "dataset.recording_ids=[1]", "model=tiny", "trainer.max_epochs=1",
        "loader.batch_size=16", "trainer.enable_progress_bar=false", "device=cpu", f"run_dir={tmp_path}",
    ]  # fmt: skip
    config = compose_config("pretrain", overrides)
    assert (config.model.modality, config.model.sequence_length, config.model.latent_step) == ("spikes", 1.0, 0.125)
    assert config.model.bin_size == 0.05
    metrics = read_metrics(pretrain(config))
    assert metrics["simulated"]
    assert {row["scheme"] for row in metrics["rows"]} == {"temporal", "neuron", "intra_region", "inter_region"}
    assert all(np.isfinite(row["model"]) for row in metrics["rows"])
