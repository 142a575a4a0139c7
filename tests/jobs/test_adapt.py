"""Adaptation to a new recording: what is frozen stays, bit by bit, and what is not yet free has not moved."""

import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import SequentialFixedWindowSampler, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.optim import adamw_with_warmup
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.adapt import adapt, gradual_unfreezing

ROWS = {"unit_emb", "gain_emb", "session_emb", "decoder.state_rows", "factors.loading_rows"}
ROWS = {f"{name}.weight" for name in ROWS | {"factors.log_noise_rows", "factors.log_bins_rows", "factors.curve_rows"}}


@pytest.fixture(scope="module")
def pretrained(binned_root, tmp_path_factory):
    """A model that knows session0 alone."""
    torch.manual_seed(0)
    dataset = BinnedRecordings(root=binned_root, recording_ids=["session0"])
    model = NeuroBridgeModel(
        modality="spike_counts", sequence_length=1.0, latent_step=0.25, dim=32, depth=2, dim_head=16, num_factors=16
    )
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    with torch.no_grad():  # as after a training: the residual is no longer zero
        model.decoder.readout[-1].reset_parameters()
        model.decoder.state_rows.weight.normal_(0, 0.02)
    return model.save_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


def config(root, run_dir, pretrained, *overrides):
    return compose_config(
        "adapt",
        [
            f"dataset.root={root}", "dataset.recording_ids=[session1]", f"run_dir={run_dir}", "loader.batch_size=8",
            f"pretrained={pretrained}", "trainer.max_epochs=3", "trainer.enable_progress_bar=false",
            "device=cpu", *overrides,
        ],
    )  # fmt: skip


def first_window(dataset):
    intervals = dataset.get_sampling_intervals("train")
    windows = SequentialFixedWindowSampler(sampling_intervals=intervals, window_length=1.0, drop_short=True)
    return dataset[next(iter(windows))]


def states(run, pretrained):
    """Parameters before and after, without the new rows; and the rows that are new."""
    before = NeuroBridgeModel.load_pretrained(pretrained).state_dict()
    model = NeuroBridgeModel.load_pretrained(run / "model")
    after = {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    assert {"s0/u00", "s1/u00", "s1/u10"} <= set(model.unit_emb.vocab)
    assert set(model.session_emb.vocab) == {"NA", "session0", "session1"}
    return (
        before,
        {k: v[: len(before[k])] for k, v in after.items()},
        {k: v[len(before[k]) :] for k, v in after.items()},
    )


def test_units_alone_leaves_everything_else_bit_equal(binned_root, tmp_path, pretrained):
    run = adapt(config(binned_root, tmp_path, pretrained))
    before, after, new = states(run, pretrained)
    assert set(ROWS) <= set(after)
    for name, value in after.items():
        assert torch.equal(value, before[name]), name  # also the rows of session0 and of its units
    for name in ROWS:
        rows = new[name]
        assert len(rows) == (1 if name == "session_emb.weight" else 11)
    assert (new["factors.dynamics_rows.weight"] != 0).any(1).tolist() == [True]  # of the new recording
    assert new["gain_emb.weight"].abs().amin(1).gt(0).any()  # zero before training: they have learned
    assert {row["scheme"] for row in read_metrics(run)["rows"]} == {"temporal", "neuron"}


def test_rows_of_new_units_start_from_factor_analysis(binned_root, tmp_path, pretrained):
    run = adapt(
        config(binned_root, tmp_path, pretrained, "trainer.max_epochs=1", "optimizer.lr=1e-9", "optimizer.factor_lr=0")
    )
    before, after, new = states(run, pretrained)
    for rows in ("factors.loading_rows.weight", "factors.log_noise_rows.weight"):
        assert torch.equal(after[rows], before[rows])  # units that it knew
    loadings, noise = new["factors.loading_rows.weight"], new["factors.log_noise_rows.weight"].exp()
    torch.testing.assert_close((loadings**2).sum(1) + noise[:, 0], torch.ones(len(noise)), rtol=0.05, atol=0.0)


def test_gradual_unfreezing_trains_all_but_the_rows_of_absent_units(binned_root, tmp_path, pretrained):
    run = adapt(config(binned_root, tmp_path, pretrained, "mode=gradual", "unfreeze.last=0.4", "trainer.max_epochs=4"))
    before, after, _ = states(run, pretrained)
    for name, value in after.items():
        same = torch.equal(value, before[name])
        constant = name in ROWS | {"unit_stats.weight", "factors.dynamics_rows.weight"}
        constant = constant or name.startswith(("rotary_emb", "response"))
        assert same == constant, name


def test_each_part_starts_at_its_step(binned_root, pretrained):
    dataset = BinnedRecordings(root=binned_root, recording_ids=["session0"])
    model = NeuroBridgeModel.load_pretrained(pretrained)
    groups = gradual_unfreezing(model, lr=1e-2, factor_lr=1e-2, body_lr=1e-2, first=0.25, last=0.75)(16)
    assert [group.first_step for group in groups] == [0, 0, 4, 7, 9, 12]
    trained = [{name for name, _ in group.parameters} for group in groups]
    assert all(name.startswith("proc_layers.1.") for name in trained[3])
    assert {"enc_atn.to_q.weight", "latent_emb.weight", "input_value_map.weight"} <= trained[5]
    assert sum(map(len, trained)) == len(list(model.parameters()))

    training = adamw_with_warmup(*groups, weight_decay=0.1, total_steps=16)
    optimizer, schedule = training["optimizer"], training["lr_scheduler"]["scheduler"]
    first = {name: value.clone() for name, value in model.named_parameters()}
    began = {}
    window = first_window(dataset)
    for step in range(14):
        batch = collate([model.tokenize_with_targets(window)])
        optimizer.zero_grad()
        model.masked_loss(model(**batch["model_inputs"]), batch).backward()
        optimizer.step()
        schedule.step()
        for name, value in model.named_parameters():
            if name not in began and not torch.equal(value, first[name]):
                began[name] = step
    assert began["unit_emb.weight"] == 0
    assert began["decoder.unit_query.weight"] == 4
    assert began["proc_layers.1.0.to_qkv.weight"] == 7
    assert began["proc_layers.0.0.to_qkv.weight"] == 9
    assert began["enc_atn.to_q.weight"] == 12


def test_units_that_the_model_does_not_know_are_named_with_the_way_out(binned_root, pretrained):
    dataset = BinnedRecordings(root=binned_root, recording_ids=["session1"])
    model = NeuroBridgeModel.load_pretrained(pretrained)
    with pytest.raises(InputError, match="neurobridge adapt"):
        model.tokenize_with_targets(first_window(dataset))


def test_a_schedule_that_cannot_be_is_refused(binned_root, tmp_path, pretrained):
    with pytest.raises(InputError, match="unfreeze.first"):
        adapt(config(binned_root, tmp_path / "a", pretrained, "mode=gradual", "unfreeze.first=0.9"))
    with pytest.raises(InputError, match="mode=units or mode=gradual"):
        adapt(config(binned_root, tmp_path / "b", pretrained, "mode=all"))


def day_after(binned_root, root, width):
    """The units of session0 on another day, in bins ``width`` times as wide."""
    first = BinnedRecordings(binned_root).get_recording("session0")
    counts = first.spike_counts.value[::-1].reshape(-1, width, len(first.units)).sum(1)
    splits = {"train": ([0.0], [40.0]), "valid": ([40.0], [50.0]), "test": ([50.0], [60.0])}
    units = {"id": first.units.id, "area": first.units.area}
    given = {"brainset_id": "test", "session_id": "session2", "subject_id": "subject", "simulated": True}
    save_recording(
        build_recording(**given, units=units, counts=(counts, width * 0.05), splits=splits), root / "session2.h5"
    )


def test_a_day_with_no_unit_but_known_ones(binned_root, tmp_path, pretrained):
    day_after(binned_root, tmp_path / "data", width=1)
    settings = ("dataset.recording_ids=[session2]", "trainer.max_epochs=1")
    run = adapt(config(tmp_path / "data", tmp_path / "run", pretrained, *settings))
    assert len(NeuroBridgeModel.load_pretrained(run / "model").unit_emb.vocab) == 1 + 16
    assert {row["scheme"] for row in read_metrics(run)["rows"]} == {"temporal", "neuron"}


def test_bins_of_another_width_are_refused(binned_root, tmp_path, pretrained):
    day_after(binned_root, tmp_path / "data", width=2)
    with pytest.raises(InputError, match=r"bins of 0.05 s, which the model[\s\S]*bins of 0.1 s in recording session2"):
        adapt(config(tmp_path / "data", tmp_path / "run", pretrained, "dataset.recording_ids=[session2]"))
