"""Moving averages, accumulation, checkpointing and precision change what they should, and a cut run goes on exactly."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.modules.masked import PretrainingModule
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.jobs.pretrain import pretrain


def config(root, run_dir, *overrides):
    return compose_config(
        "pretrain",
        [
            "model=tiny", "dataset=binned", f"dataset.root={root}", f"run_dir={run_dir}", "loader.batch_size=16",
            "trainer.max_epochs=3", "trainer.enable_progress_bar=false", "device=cpu", "optimizer.lr=5e-3",
            *overrides,
        ],
    )  # fmt: skip


def losses(run, column="train/loss"):
    return pd.read_csv(run / "metrics.csv")[column].dropna().to_numpy()


def assert_same_weights(one, two, **tolerance):
    a, b = (NeuroBridgeModel.load_pretrained(run / "model").state_dict() for run in (one, two))
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, b[name], **tolerance)


class Cut(Exception):
    pass


def test_a_cut_run_goes_on_exactly_with_everything_switched_on(mixed_root, tmp_path, monkeypatch):
    """Two modalities, sampling by size, dropout, moving average, accumulation, bfloat16 and a worker at once."""
    options = ["model.modality=[mua,spike_counts]", "model.lin_dropout=0.2", "ema=0.9", "loader.batch_size=8"]
    options += ["trainer.accumulate_grad_batches=2", "precision=bf16-mixed", "loader.num_workers=1"]
    whole = pretrain(config(mixed_root, tmp_path / "whole", *options))

    def cut_in_epoch_2(module):
        if module.current_epoch == 2:
            raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(PretrainingModule, "on_train_epoch_start", cut_in_epoch_2)
        pretrain(config(mixed_root, tmp_path / "cut", *options))
    resumed = pretrain(config(mixed_root, tmp_path / "cut", *options))
    columns = [c for c in pd.read_csv(whole / "metrics.csv") if "loss" in c]
    assert {"train/loss/mua", "train/loss/spike_counts", "val/loss/mua/neuron", "val/loss/spike_counts/temporal"} < set(
        columns
    )
    for column in columns:
        assert len(losses(whole, column)) == (4 if column.startswith("val") else 3)  # validated before training too
        np.testing.assert_allclose(losses(resumed, column), losses(whole, column), rtol=1e-5)
    assert_same_weights(whole, resumed)
    assert {row["scheme"]: row["metric"] for row in read_metrics(resumed)["rows"]} == {
        "mua/temporal": "masked MSE (z units)",
        "mua/neuron": "masked MSE (z units)",
        "spike_counts/temporal": "bits/spike",
        "spike_counts/neuron": "bits/spike",
    }


@pytest.fixture(scope="module")
def mixed_root(tmp_path_factory):
    """A long recording of MUA and a short one of counts."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for session, kind, seconds, n_units in (("envelope", "mua", 60, 6), ("sorted", "counts", 20, 8)):
        n_bins = seconds * 20
        drive = np.sin(np.arange(n_bins)[:, None] * 0.3 + np.arange(n_units))
        values = drive + rng.normal(0, 0.3, drive.shape) if kind == "mua" else rng.poisson(np.exp(drive))
        data = build_recording(
            brainset_id="test",
            session_id=session,
            subject_id="subject",
            units={"id": [f"{session}/{i}" for i in range(n_units)]},
            splits={"train": ([0.0], [seconds - 6.0]), "valid": ([seconds - 6.0], [float(seconds)])},
            simulated=True,
            **{kind: (values.astype(np.float32 if kind == "mua" else np.uint8), 0.05)},
        )
        save_recording(data, folder / f"{session}.h5")
    return folder


@pytest.fixture(scope="module")
def plain(binned_root, tmp_path_factory):
    return pretrain(config(binned_root, tmp_path_factory.mktemp("plain")))


def test_the_moving_average_is_validated_and_exported_but_not_trained(binned_root, tmp_path, plain):
    averaged = pretrain(config(binned_root, tmp_path / "averaged", "ema=0.9"))
    np.testing.assert_allclose(losses(averaged), losses(plain), rtol=1e-6)
    assert not np.allclose(losses(averaged, "val/loss"), losses(plain, "val/loss"), rtol=1e-4)
    checkpoint = torch.load(averaged / "checkpoints" / "last.ckpt", weights_only=True)
    last = torch.load(plain / "checkpoints" / "last.ckpt", weights_only=True)
    name = "model.enc_atn.to_q.weight"
    torch.testing.assert_close(checkpoint["current_model_state"][name], last["state_dict"][name])
    assert not torch.allclose(checkpoint["state_dict"][name], last["state_dict"][name])


def test_accumulated_batches_train_as_one_large_batch(binned_root, tmp_path):
    """One recording and scheme, so that each batch has equally many target cells."""
    common = ["dataset.recording_ids=[session0]", "masking.neuron=0", "trainer.gradient_clip_val=null"]
    large = pretrain(config(binned_root, tmp_path / "large", *common, "loader.batch_size=20"))
    small = pretrain(
        config(binned_root, tmp_path / "small", *common, "loader.batch_size=5", "trainer.accumulate_grad_batches=4")
    )
    np.testing.assert_allclose(losses(small), losses(large), rtol=1e-4)
    assert_same_weights(large, small, rtol=1e-2, atol=1e-4)


def test_a_run_starts_from_a_checkpoint_of_capoyo_and_says_what_it_took(mixed_root, tmp_path):
    checkpoint = Path(__file__).parents[1] / "models" / "legacy" / "capoyo.ckpt"
    sizes = ["dim=16", "depth=1", "dim_head=8", "cross_heads=2", "self_heads=2", "latent_step=0.25"]
    sizes += ["num_latents_per_step=2", "modality=mua", "standardize_inputs=false"]
    run = pretrain(
        config(
            mixed_root, tmp_path, "dataset.recording_ids=[envelope]", f"warm_start={checkpoint}", "optimizer.lr=0",
            "trainer.max_epochs=1", "gradient_checkpointing=true", *(f"model.{setting}" for setting in sizes),
        )
    )  # fmt: skip
    report = json.loads((run / "warm_start.json").read_text())
    assert report["source"] == "CaPOYO" and report["new_sessions"] == ["envelope"] and report["units"] == []
    theirs = torch.load(checkpoint, weights_only=False)["state_dict"]  # a file of ours
    ours = NeuroBridgeModel.load_pretrained(run / "model").state_dict()
    for name in ("enc_atn.to_kv.weight", "proc_layers.0.0.to_qkv.weight", "latent_emb.weight"):
        assert torch.equal(ours[name], theirs[f"model.{name}"])


@pytest.mark.parametrize("modality", ["spike_counts", "spikes"])
def test_gradient_checkpointing_changes_no_gradient(tmp_path, modality):
    rng = np.random.default_rng(0)
    data = build_recording(
        brainset_id="test",
        session_id="both",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(9)]},
        counts=(rng.poisson(1, (40, 9)).astype(np.uint8), 0.05),
        spikes=(np.sort(rng.uniform(0, 2, 60)), rng.integers(0, 9, 60)),
    )
    save_recording(data, tmp_path / "both.h5")
    dataset = BinnedRecordings(root=tmp_path)
    torch.manual_seed(0)
    model = NeuroBridgeModel(
        modality=modality, sequence_length=1.0, latent_step=0.25, dim=32, depth=3, dim_head=16, num_factors=16,
        lin_dropout=0.3, ffn_dropout=0.3,
    )  # fmt: skip
    model.init_vocabs(dataset)
    batch = collate(
        [model.tokenize_with_targets(dataset[DatasetIndex("both", start, start + 1.0)]) for start in (0.0, 0.5)]
    )
    gradients, saved = [], []
    for model.gradient_checkpointing in (False, True):
        torch.manual_seed(1)
        model.zero_grad()
        kept = 0

        def count(x):
            nonlocal kept
            kept += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            loss = model.masked_loss(model(**batch["model_inputs"]), batch)
        loss.backward()
        saved.append(kept)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(gradients[1], gradients[0])
    assert saved[1] < saved[0] / 4


def test_bfloat16_learns_as_float32_does(binned_root, tmp_path):
    precisions = {"half": "bf16-mixed", "full": "32-true"}
    half, full = (
        pretrain(config(binned_root, tmp_path / name, "factor_start=false", f"precision={precision}"))
        for name, precision in precisions.items()
    )
    np.testing.assert_allclose(losses(half), losses(full), rtol=0.02)
    assert losses(half, "val/loss")[-1] < losses(half, "val/loss")[0]
