"""NeuroBridgeModel: invariances, gradients, round trips, and its place beside POYO."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch_brain.models import POYO

from neurobridge_tb import ImageAligner, NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate, create_linspace_latent_tokens
from neurobridge_tb.data.windows import window_loader
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking import Mask

TINY = dict(dim=32, depth=2, dim_head=16, num_factors=16, sequence_length=1.0, latent_step=0.25)


def make_model(dataset, modality="spike_counts", **settings):
    torch.manual_seed(0)
    model = NeuroBridgeModel(modality=modality, **(TINY | settings))
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    with torch.no_grad():  # zero-initialised parts take part in the tests too
        if model.gain_emb is not None:
            model.gain_emb.weight.normal_(0, 0.02)
        model.decoder.state_rows.weight.normal_(0, 0.02)
        model.decoder.readout[-1].reset_parameters()
        if model.factor_update is not None:
            model.factor_update.reset_parameters()
    return model.eval()


@pytest.fixture(scope="module")
def dataset(binned_root):
    return BinnedRecordings(root=binned_root)


@pytest.fixture(scope="module")
def model(dataset):
    return make_model(dataset)


def window(dataset, recording="session0", start=2.0):
    return dataset[DatasetIndex(recording, start, start + 1.0)]


@torch.no_grad()
def run(model, *windows, mask=None):
    return model(**collate([model.tokenize_with_targets(w, mask) for w in windows])["model_inputs"])


def test_output_is_one_value_a_bin_and_unit(model, dataset):
    assert run(model, window(dataset)).shape == (1, 20, 16)


def test_batch_mates_of_another_recording_do_not_matter(model, dataset):
    alone = [run(model, window(dataset)), run(model, window(dataset, "session1"))]
    together = run(model, window(dataset), window(dataset, "session1"))
    torch.testing.assert_close(together[:1], alone[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1:, :, :11], alone[1], rtol=1e-4, atol=1e-5)


def test_masked_cells_do_not_matter(model, dataset):
    rng = np.random.default_rng(0)
    target = rng.random((20, 16)) < 0.3
    changed = window(dataset)
    changed.spike_counts.value = np.where(target, 200, changed.spike_counts.value).astype(np.uint8)
    mask = Mask("random", ~target, target)
    torch.testing.assert_close(
        run(model, changed, mask=mask), run(model, window(dataset), mask=mask), rtol=1e-4, atol=1e-5
    )


def test_seen_cells_do_matter(model, dataset):
    changed = window(dataset)
    changed.spike_counts.value = changed.spike_counts.value[:, ::-1].copy()
    assert (run(model, changed) - run(model, window(dataset))).abs().max() > 1e-3


def test_unit_order_does_not_matter(model, dataset):
    order = np.random.default_rng(0).permutation(16)
    shuffled = window(dataset)
    shuffled.spike_counts.value = shuffled.spike_counts.value[:, order]
    shuffled.units.id = shuffled.units.id[order]
    torch.testing.assert_close(run(model, shuffled), run(model, window(dataset))[:, :, order], rtol=1e-4, atol=1e-5)


def test_a_window_is_seen_relative_to_its_start(model, dataset, tmp_path):
    """The same activity half a minute later gives the same latents."""
    recording = dataset.get_recording("session0")
    moved = build_recording(
        brainset_id="test",
        session_id="session0",
        subject_id="subject",
        units={"id": recording.units.id, "area": recording.units.area},
        counts=(recording.spike_counts.value, 0.05),
        start=30.0,
    )
    save_recording(moved, tmp_path / "session0.h5")
    later = BinnedRecordings(root=tmp_path)[DatasetIndex("session0", 32.0, 33.0)]
    torch.testing.assert_close(run(model, later), run(model, window(dataset)), rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient(dataset):
    model = make_model(dataset).train()
    windows = [window(dataset), window(dataset, "session1")]
    batch = collate([model.tokenize_with_targets(w) for w in windows])
    model.masked_loss(model(**batch["model_inputs"]), batch).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and not (p.grad is not None and p.grad.any())]
    assert not without


def test_events_and_counts_see_the_same_spikes(tmp_path):
    """A spike is a token of value 1: events at bin starts equal a grid of counts of at most one."""
    rng = np.random.default_rng(3)
    counts = (rng.random((40, 6)) < 0.3).astype(np.uint8)
    bins, units = np.nonzero(counts)
    save_recording(
        build_recording(
            brainset_id="test",
            session_id="both",
            subject_id="subject",
            units={"id": [f"u{i}" for i in range(6)]},
            spikes=(bins * 0.05, units),
            counts=(counts, 0.05),
        ),
        tmp_path / "both.h5",
    )
    dataset = BinnedRecordings(root=tmp_path)
    settings = dict(TINY, num_factors=0, bin_size=0.05)
    torch.manual_seed(0)
    grid = NeuroBridgeModel(modality="spike_counts", **settings)
    grid.init_vocabs(dataset)
    events = NeuroBridgeModel(modality="spikes", **settings)
    events.load_state_dict(copy.deepcopy(grid.state_dict()))
    sample = dataset[DatasetIndex("both", 0.0, 1.0)]
    spikes_only = Mask("events", sample.spike_counts.value > 0, np.ones((20, 6), bool))
    latents = []
    for model, mask in ((grid, spikes_only), (events, None)):
        inputs = collate([model.tokenize_with_targets(sample, mask)])["model_inputs"]
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        latents.append(model.double().eval().encode(**inputs))
    torch.testing.assert_close(*latents, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(events.grid_values(sample)[0], sample.spike_counts.value)


@pytest.mark.parametrize("boundary_tokens", [False, True])
def test_events_have_float32_gradients_under_bf16_autocast(boundary_tokens):
    """A unit's gradient is a sum over its thousands of spikes, which bfloat16 would lose."""
    torch.manual_seed(0)
    model = NeuroBridgeModel(modality="spikes", boundary_tokens=boundary_tokens, **dict(TINY, num_factors=0))
    unit_ids = [f"u{i}" for i in range(4)]
    model.init_vocabs(SimpleNamespace(get_unit_ids=lambda: unit_ids, recording_ids=["session"]))
    model.eval()
    index, times = create_linspace_latent_tokens(0, 1.0, step=model.latent_step, num_latents_per_step=2)
    n = 2000
    inputs = {
        "input_mask": torch.ones(3, n, dtype=torch.bool),
        "input_timestamps": torch.rand(3, n).sort().values,
        "input_unit_index": torch.randint(1, 5, (3, n)),
        "latent_index": torch.from_numpy(index).expand(3, -1),
        "latent_timestamps": torch.from_numpy(times).float().expand(3, -1),
    }
    if boundary_tokens:
        inputs["input_token_type"] = torch.randint(0, 3, (3, n))
    parameters = [model.enc_atn.to_kv.weight, model.unit_emb.weight]
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            latents = model.encode(**inputs)
        gradients.append(torch.autograd.grad(latents.float().square().sum(), parameters))
    for exact, rough in zip(*gradients, strict=True):
        assert (rough - exact).norm() < 0.05 * exact.norm()


def test_factors_follow_the_recordings_dynamics(model, dataset, tmp_path):
    inputs = collate([model.tokenize_with_targets(window(dataset))])["model_inputs"]
    with pytest.raises(InputError, match="session_index"):
        model.infer_factors(**{name: x for name, x in inputs.items() if name != "session_index"})
    coupled = copy.deepcopy(model)
    coupled.factors.set_dynamics(["session0"], 0.9 * torch.eye(16))
    hidden = inputs | {"input_mask": inputs["input_mask"].clone()}
    hidden["input_mask"][:, 5:7] = False
    del hidden["mask_patterns"], hidden["mask_pattern_index"]
    assert (model.infer_factors(**hidden).mean[:, 5:7] == 0).all()
    assert (coupled.infer_factors(**hidden).mean[:, 5:7] != 0).any()
    coupled.save_pretrained(tmp_path / "model")
    state = load_file(tmp_path / "model/model.safetensors")
    config = json.loads((tmp_path / "model/config.json").read_text())
    del state["factors.dynamics_rows.weight"], config["vocabs"]["factors.dynamics_rows.vocab"]
    save_file(state, tmp_path / "model/model.safetensors")  # as saved before there were dynamics
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    before = NeuroBridgeModel.load_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(before(**inputs), model(**inputs))


def test_a_burst_of_counts_moves_factors_no_further_than_three_standard_deviations(model, dataset):
    inputs = collate([model.tokenize_with_targets(window(dataset))])["model_inputs"]
    mean, std = model.unit_stats(inputs["input_unit_index"])[:, None].unbind(-1)
    below, at, ten, hundred = (
        model.infer_factors(**inputs | {"input_values": (mean + n * std).expand_as(inputs["input_values"])}).mean
        for n in (2.9, 3.0, 10.0, 100.0)
    )
    assert not torch.allclose(below, at)
    assert torch.equal(ten, hundred)
    torch.testing.assert_close(at, ten)


def test_latents_update_factors_and_units_read_them_by_their_loadings(model, dataset):
    assert not NeuroBridgeModel(**TINY).factor_update.weight.any()  # starts at zero
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.factors.curve_rows.weight.zero_()
        changed.factor_update.weight.zero_()
        changed.factor_update.bias.zero_()
        before = run(changed, window(dataset)).exp()
        changed.factor_update.bias.copy_(torch.randn(16))
        after = run(changed, window(dataset)).exp()
        units = torch.tensor(model.unit_emb.tokenizer(list(window(dataset).units.id.astype(str))))
        inputs = collate([model.tokenize(window(dataset))])
        uncertain = model.infer_factors(**inputs).variance.mean((0, 1))  # what is well known moves little
        drive = changed.factors.loading_rows(units) @ (uncertain * changed.factor_update.bias)
    assert (((after > before).float().mean((0, 1)) > 0.5) == (drive > 0)).all()


def test_a_grid_without_values_is_refused(model, dataset):
    inputs = collate([model.tokenize(window(dataset))])
    del inputs["input_values"]
    with pytest.raises(InputError, match="input_values"):
        model.encode(**inputs)


@pytest.mark.parametrize("settings", [{}, {"unit_value_maps": False, "num_factors": 0}])
def test_saved_models_load_with_equal_outputs(dataset, tmp_path, settings):
    model = make_model(dataset, **settings)
    model.save_pretrained(tmp_path / "model")
    loaded = NeuroBridgeModel.load_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(run(loaded, window(dataset)), run(model, window(dataset)))
    assert loaded.unit_emb.vocab == model.unit_emb.vocab


def test_wrong_or_damaged_models_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="a saved ImageAligner"):
        ImageAligner.load_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="config.json"):
        NeuroBridgeModel.load_pretrained(tmp_path / "nothing")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["config"]["dim"] = 64
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="weights that fit"):
        NeuroBridgeModel.load_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="config.json and model.safetensors"):
        NeuroBridgeModel.load_pretrained(tmp_path / "model")


def test_weights_of_which_a_bit_has_flipped_are_refused(model, tmp_path):
    path = model.save_pretrained(tmp_path / "model") / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="weights in model.safetensors are damaged"):
        NeuroBridgeModel.load_pretrained(tmp_path / "model")


def test_a_failed_save_leaves_nothing_under_the_final_name(model, tmp_path, monkeypatch):
    monkeypatch.setattr("neurobridge_tb.models.pretrained.save", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_nan_is_absent_and_a_window_without_values_is_refused(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    values[:, 2] = np.nan
    values[20:] = np.nan
    save_recording(
        build_recording(
            brainset_id="test",
            session_id="mua",
            subject_id="subject",
            units={"id": [f"u{i}" for i in range(5)]},
            mua=(values, 0.05),
            splits={"train": ([0.0], [1.0])},
        ),
        tmp_path / "mua.h5",
    )
    dataset = BinnedRecordings(root=tmp_path)
    model = make_model(dataset, modality="mua")
    sample = model.tokenize_with_targets(dataset[DatasetIndex("mua", 0.0, 1.0)])
    batch = collate([sample])
    assert batch["target_values"].shape == (1, 20, 4)
    assert torch.isfinite(model(**batch["model_inputs"])).all()
    with pytest.raises(InputError, match="recording mua at 1.000 s"):
        model.tokenize_with_targets(dataset[DatasetIndex("mua", 1.0, 2.0)])
    with pytest.raises(InputError, match="'spike_counts' in recording mua"):
        make_model(dataset, modality="spike_counts")


def test_it_trains_from_the_same_dataset_sampler_and_collate_as_poyo(tmp_path):
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 20, 2000))
    hand_times = np.arange(0, 20, 0.05)
    save_recording(
        build_recording(
            brainset_id="test",
            session_id="spikes",
            subject_id="subject",
            units={"id": [f"u{i}" for i in range(8)]},
            spikes=(times, rng.integers(0, 8, 2000)),
            behavior={"hand_velocity": (hand_times, np.stack([np.sin(hand_times), np.cos(hand_times)], 1))},
            splits={"train": ([0.0], [19.9])},
        ),
        tmp_path / "spikes.h5",
    )
    dataset = BinnedRecordings(root=tmp_path)
    ours = NeuroBridgeModel(modality="spikes", **TINY)
    poyo = POYO(sequence_length=1.0, latent_step=0.25, num_latents_per_step=4, dim=32, dim_head=16, depth=1, dim_out=2)

    def poyo_sample(data):
        sample = poyo.tokenize(data)
        sample["output_timestamps"] = data.hand.timestamps[:16]
        sample["velocity"] = data.hand.velocity[:16]
        return sample

    def ours_loss(batch):
        return ours.masked_loss(ours(**batch["model_inputs"]), batch)

    def poyo_loss(batch):
        velocity = batch.pop("velocity")
        return torch.nn.functional.mse_loss(poyo(**batch), velocity.float())

    for network, transform, loss_of in ((ours, ours.tokenize_with_targets, ours_loss), (poyo, poyo_sample, poyo_loss)):
        network.init_vocabs(dataset)
        loader = window_loader(
            dataset, transform, dataset.get_sampling_intervals("train"), windows="continuous",
            window_length=1.0, batch_size=8, shuffle=True,
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        losses = []
        for _ in range(8):
            for batch in loader:
                batch = {k: v.float() if k == "output_timestamps" else v for k, v in batch.items()}
                loss = loss_of(batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_unit_of_measurement_makes_no_difference(tmp_path):
    values = np.random.default_rng(0).normal(size=(600, 3)) + [0, 5, -2]
    standardized = []
    for session, scale in (("a", 1.0), ("b", 1e-9)):  # nanovolts
        recording = build_recording(
            brainset_id="test", session_id=session, subject_id="m", units={"id": [f"{session}{i}" for i in range(3)]},
            mua=(values * scale, 0.1), splits={"train": (0.0, 60.0)},
        )  # fmt: skip
        save_recording(recording, tmp_path / session / f"{session}.h5")
        dataset = BinnedRecordings(root=tmp_path / session)
        model = make_model(dataset, "mua")
        units = torch.from_numpy(model.unit_index(dataset.get_recording(session)))[None]
        of_file = torch.from_numpy(dataset.get_recording(session).mua.value)[None]
        standardized.append(model.standardize(of_file, units))
    torch.testing.assert_close(*standardized, rtol=1e-4, atol=1e-4)
    assert standardized[0].std() == pytest.approx(1, abs=0.01)
