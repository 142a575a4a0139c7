"""Fine-tuning: every decoder finds a behaviour that drives the units, from the labels given and no others."""

import numpy as np
import pytest
import torch
from small_models import save_encoder

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import Interval, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.modules import decoding
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.finetune import finetune, first_intervals
from neurobridge_tb.models import BehaviorDecoder
from neurobridge_tb.models.decoding_baselines import GRUDecoder, POYODecoder

BINS = np.array([10, 14, 12])  # of trials, in turn


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    rng = np.random.default_rng(0)
    edges = 0.05 * np.concatenate([[0], np.cumsum(np.tile(BINS, 40))])
    times = np.arange(round(edges[-1] / 0.05)) * 0.05
    velocity = np.stack([np.sin(2 * np.pi * times / 1.3), np.cos(2 * np.pi * times / 2.1)], axis=1)
    counts = rng.poisson(np.exp(velocity @ rng.normal(0, 0.7, (2, 20)) + 0.3)).astype(np.uint8)
    starts, ends = edges[:-1], edges[1:]
    data = build_recording(
        brainset_id="test",
        session_id="reach",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(20)]},
        counts=(counts, 0.05),
        behavior={"hand_velocity": (times + 0.025, velocity)},
        splits={
            "train": (starts[:80], ends[:80]),
            "valid": (starts[80:100], ends[80:100]),
            "test": (starts[100:], ends[100:]),
        },
        simulated=True,
    )
    save_recording(data, folder / "reach.h5")
    save_encoder(folder, sequence_length=0.7, latent_step=0.05, num_latents_per_step=1, num_factors=32)
    return folder


def settings(root, out, *overrides):
    return compose_config(
        "finetune",
        [
            f"dataset.root={root}", f"pretrained={root}/model", f"run_dir={out}", "windows=trial", "history=2",
            "trainer.enable_progress_bar=false", "device=cpu", *overrides,
        ],
    )  # fmt: skip


def test_every_decoder_finds_the_behaviour(root, tmp_path):
    config = settings(
        root, tmp_path, "steps=90", "optimizer.lr=5e-3", "optimizer.pretrained_lr=5e-3", "unit_dropout=0.1"
    )
    metrics = read_metrics(finetune(config))
    scores = {row["decoder"]: row for row in metrics["rows"]}
    assert list(scores) == ["pretrained", "frozen", "scratch", "gru", "poyo", "ridge"]
    assert metrics["labelled windows"] == 80 and metrics["simulated"] and metrics["notes"] == []
    for name, row in scores.items():
        assert row["R2"]["low"] <= row["R2"]["value"] <= row["R2"]["high"]
        assert row["R2"]["value"] == pytest.approx(np.mean(row["R2 of columns"]))
        if name != "poyo":  # learns slowly; that it learns at all is upstream's to test
            assert row["R2"]["value"] > 0.5, name
    # exported, loads, and predicts as it did
    decoder = BehaviorDecoder.load_pretrained(tmp_path / "pretrained" / "model").eval()
    window = BinnedRecordings(root=root).get_recording("reach").slice(0.0, 0.5)
    assert decoder(**collate([decoder.tokenize(window)])).shape == (1, 10, 2)


def test_training_that_does_not_help_leaves_the_closed_form(root, tmp_path):
    config = settings(root, tmp_path, "steps=10", "optimizer.pretrained_lr=1", "rows=[pretrained, frozen]")
    pretrained, frozen = read_metrics(finetune(config))["rows"]
    assert frozen["R2"]["value"] > 0.5
    assert pretrained["R2"] == pytest.approx(frozen["R2"], abs=1e-6)


def test_a_bin_reads_its_neighbours_within_the_window_alone(root):
    encoder = NeuroBridgeModel.load_pretrained(root / "model").eval()
    dataset = BinnedRecordings(root=root)
    torch.manual_seed(0)
    decoder = BehaviorDecoder(encoder=encoder.config, dim_out=2, bins_around=1).eval()
    decoder.encoder = encoder
    short, long = (decoder.tokenize(dataset.get_recording("reach").slice(0.0, end)) for end in (0.3, 0.5))
    alone, batch = collate([short]), collate([short, long])
    states = decoder.states(**alone)
    assert states.shape == (1, 6, 3 * encoder.dim_features)
    before, at, after = states.chunk(3, dim=-1)
    torch.testing.assert_close(before[:, 1:], at[:, :-1])
    torch.testing.assert_close(after[:, :-1], at[:, 1:])
    torch.testing.assert_close(before[:, 0], at[:, 0])
    torch.testing.assert_close(after[:, -1], at[:, -1])
    torch.testing.assert_close(decoder.states(**batch)[:1, :6], states)


class Given(BehaviorDecoder):
    def states(self, *, x):
        return x


def test_factors_are_read_where_they_help(root, monkeypatch):
    decoder = Given(encoder=NeuroBridgeModel.load_pretrained(root / "model").config, dim_out=1, bins_around=0)
    dim, width = decoder.encoder.dim, decoder.encoder.dim_features
    monkeypatch.setattr(decoding, "_batches", lambda tokenizer, windows: windows)
    rng = torch.Generator().manual_seed(0)
    for told_by in (0, dim):  # a bin state, a factor
        windows = []
        for n in (40, 400):  # few labels, more to choose by
            x = torch.randn(1, n, width, generator=rng)
            target = x[..., told_by : told_by + 1]
            mask = torch.ones(1, n, dtype=torch.bool)
            windows.append({"model_inputs": {"x": x}, "target_mask": mask, "target_values": target})
        decoding.fit_readout(decoder, None, windows[:1], windows[1:])
        assert bool(decoder.readout.weight[:, dim:].any()) == (told_by == dim)


def test_a_finished_run_is_not_trained_again(root, tmp_path):
    config = settings(root, tmp_path, "steps=6", "rows=[scratch]", "labels=8")
    first = read_metrics(finetune(config))
    checkpoint = tmp_path / "scratch" / "checkpoints" / "last.ckpt"
    written = checkpoint.stat().st_mtime_ns
    assert read_metrics(finetune(config)) == first
    assert checkpoint.stat().st_mtime_ns == written


def test_only_the_first_labels_are_used():
    intervals = {"a": Interval(np.arange(5.0), np.arange(5.0) + 1), "b": Interval(np.arange(2.0), np.arange(2.0) + 1)}
    assert {k: len(v) for k, v in first_intervals(intervals, 3).items()} == {"a": 3, "b": 2}
    assert first_intervals(intervals, 3)["a"].start.tolist() == [0, 1, 2]
    assert {k: len(v) for k, v in first_intervals(intervals, None).items()} == {"a": 5, "b": 2}


def test_baselines_read_the_units_kept_alone(root):
    dataset = BinnedRecordings(root=root)
    reader = NeuroBridgeModel.load_pretrained(root / "model").eval()
    window, keep = dataset.get_recording("reach").slice(0.0, 0.5), np.arange(20) >= 5
    torch.manual_seed(0)
    for decoder in (GRUDecoder(reader, dataset, dim_out=2).eval(), POYODecoder(reader, dataset, dim_out=2).eval()):
        changed = dataset.get_recording("reach").slice(0.0, 0.5)
        changed.spike_counts.value = changed.spike_counts.value.copy()
        changed.spike_counts.value[:, :5] += 1
        kept, same, all_seen = (
            decoder(**collate([decoder.tokenize(w, k)])) for w, k in ((window, keep), (changed, keep), (window, None))
        )
        torch.testing.assert_close(kept, same)
        assert not torch.allclose(kept, all_seen)


def test_a_count_is_as_many_spikes_for_poyo(root):
    dataset = BinnedRecordings(root=root)
    decoder = POYODecoder(NeuroBridgeModel.load_pretrained(root / "model"), dataset, dim_out=2)
    window = dataset.get_recording("reach").slice(0.0, 0.5)
    tokens = decoder.tokenize(window)
    spikes = np.asarray(tokens["input_token_type"].obj) == 0
    assert spikes.sum() == window.spike_counts.value.sum()
    bins = np.floor(np.asarray(tokens["input_timestamps"].obj)[spikes] / 0.05).astype(int)
    assert np.bincount(bins, minlength=10).tolist() == window.spike_counts.value.sum(1).tolist()


@pytest.mark.parametrize(
    ("override", "named"), [("rows=[lstm]", "lstm"), ("target=image_id", "image_id"), ("labels=0", "labels=0")]
)
def test_unknown_rows_and_targets_are_named(root, tmp_path, override, named):
    with pytest.raises(InputError, match=named):
        finetune(settings(root, tmp_path, override))
