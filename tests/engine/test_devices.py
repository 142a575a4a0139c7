"""Training, validation and prediction on a pretend accelerator: nothing of the CPU meets it, no step waits for it."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretend_device import DEVICE, Mismatch, pretend_device, to_device

from neurobridge_tb import ImageAligner, NeuroBridgeModel, NeuroHorizonModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.datasets.reference_features import recording_features
from neurobridge_tb.engine.modules.alignment import AlignmentModule
from neurobridge_tb.engine.modules.decoding import DecodingModule
from neurobridge_tb.engine.modules.forecasting import ForecastModule
from neurobridge_tb.engine.modules.masked import PretrainingModule
from neurobridge_tb.masking import MaskedTokenizer
from neurobridge_tb.models import BehaviorDecoder
from neurobridge_tb.models.decoding_baselines import GRUDecoder, POYODecoder
from neurobridge_tb.registry_ext import MSELoss

SIZES = dict(dim=16, depth=1, dim_head=8, self_heads=2)
WINDOW = dict(sequence_length=1.0, latent_step=0.25, num_latents_per_step=2)
SCHEMES = dict.fromkeys(("temporal", "neuron", "random"), 1.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two recordings of unlike units, with spikes, counts and an envelope of which some values are absent."""
    root = tmp_path_factory.mktemp("devices")
    rng = np.random.default_rng(0)
    for name, n_units in (("one", 6), ("two", 4)):
        counts = rng.poisson(0.6, (400, n_units)).astype(np.uint8)
        bins, units = np.nonzero(counts)
        envelope = rng.normal(size=(400, n_units)).astype(np.float32)
        envelope[30:33, 1] = np.nan
        data = build_recording(
            brainset_id="test",
            session_id=name,
            subject_id="subject",
            units={"id": [f"{name}/u{i}" for i in range(n_units)]},
            spikes=(bins * 0.05 + 0.01, units),
            counts=(counts, 0.05),
            mua=(envelope, 0.05),
            splits={"train": ([0.0], [20.0])},
            simulated=True,
        )
        save_recording(data, root / f"{name}.h5")
    return BinnedRecordings(root=root)


def windows(dataset, length=1.0):
    return [
        dataset[DatasetIndex(r, s, s + length)] for r, s in (("one", 1.0), ("two", 2.0), ("one", 5.0), ("two", 7.0))
    ]


def make_encoder(dataset, modality, **settings):
    torch.manual_seed(0)
    model = NeuroBridgeModel(modality=modality, bin_size=0.05, **WINDOW, **SIZES, **settings)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    return model


def make_horizon(dataset, modality, identity):
    torch.manual_seed(0)
    model = NeuroHorizonModel(
        modality=modality, history=0.5, horizon=0.3, bin_size=0.05, latent_step=0.25, num_latents_per_step=2,
        dim_feedback=8, dim_hidden=8, dim_identity=8, unit_identity=identity, encoder=SIZES,
    )  # fmt: skip
    model.init_vocabs(dataset)
    intervals = dataset.get_sampling_intervals("train")
    features = {r: recording_features(dataset.get_recording(r), intervals[r]) for r in dataset.recording_ids}
    model.fit_units(dataset, intervals, features if identity == "features" else None)
    return model


def on_trainer(module, **values):
    """Ready for a step without a Trainer: it logs nowhere."""
    module.log = lambda *_, **__: None
    module._trainer = SimpleNamespace(
        world_size=1, global_rank=0, global_step=0, current_epoch=0, sanity_checking=False, is_global_zero=True
    )
    module._fabric = None
    for name, value in values.items():
        setattr(module, name, value)
    return module


def moved(module, batch):
    """The module on the device, and the batch as the Trainer hands it over."""
    to_device(module)._device = DEVICE
    return module.transfer_batch_to_device(batch, DEVICE, 0)


def step(module, batch, seed=0):
    torch.manual_seed(seed)
    loss = module.training_step(batch, 0)
    loss.backward()
    torch.optim.AdamW([p for p in module.parameters() if p.requires_grad and p.grad is not None]).step()
    return loss


def check_module(module, batch):
    """A training and a validation step wait for nothing, and the loss is that on the CPU."""
    expected = step(on_trainer(copy.deepcopy(module)), copy.deepcopy(batch)).detach()
    with pretend_device() as waits:
        batch = moved(module, batch)
        waits.clear()
        loss = step(module, batch)
        with torch.no_grad():
            module.eval()
            module.validation_step(batch, 0)
        assert waits == []
        torch.testing.assert_close(loss.detach().value, expected, rtol=2e-3, atol=2e-3)  # no float64 there


# ---------------------------------------------------------------------- the pretend device itself


def test_it_refuses_what_a_real_device_refuses_and_notes_what_waits():
    with pretend_device() as waits:
        x = to_device(torch.arange(6.0))
        assert x.device == DEVICE and (x * 2).device == DEVICE and torch.zeros(3, device=x.device).device == DEVICE
        with pytest.raises(Mismatch):
            x + torch.ones(6)
        with pytest.raises(Mismatch):
            torch.zeros(2, dtype=torch.float64).to(DEVICE)
        assert (x + torch.tensor(1.0)).device == DEVICE  # a number
        assert waits == []
        for waiting in (
            lambda: x.sum().item(), lambda: bool(x.sum()), lambda: x[x > 2], lambda: x.cpu(), lambda: x.nonzero(),
            lambda: torch.masked_select(x, x > 2), lambda: x.masked_scatter(x > 2, x), lambda: x.unique(),
            lambda: torch.repeat_interleave(x, (x > 2).long()), lambda: torch.equal(x, x),
        ):  # fmt: skip
            waits.clear()
            waiting()
            assert waits
        waits.clear()
        x.index_select(0, (x > 2).long()), x[(x > 2).long()], x.clamp(0, 1).sum(), torch.where(x > 2, x, 0.0)
        assert waits == []
    assert torch.zeros(2).device.type == "cpu"


# ---------------------------------------------------------------------- models and their LightningModules


@pytest.mark.parametrize("modality", ["mua", "spike_counts", "spikes", ["mua", "spike_counts"]])
@pytest.mark.parametrize("settings", [{}, {"num_factors": 0, "dim_population": 8}], ids=["factors", "population"])
def test_masked_modelling(dataset, modality, settings):
    model = make_encoder(dataset, modality, **settings)
    tokenizer = MaskedTokenizer(model, SCHEMES)
    module = on_trainer(PretrainingModule(model, lr=1e-3, factor_lr=1e-3, weight_decay=0.0, schemes=["all"]))
    check_module(module, collate([tokenizer(window) for window in windows(dataset)]))


@pytest.mark.parametrize("modality", ["spike_counts", "spikes"])
@pytest.mark.parametrize("identity", ["embedding", "features"])
def test_forecasting(dataset, modality, identity):
    model = make_horizon(dataset, modality, identity)
    batch = collate([model.tokenize_with_targets(window) for window in windows(dataset, 0.8)])
    settings = {"lr": 1e-3, "weight_decay": 0.0, "unit_dropout": 0.3, "rate_jitter": 0.2}
    check_module(on_trainer(ForecastModule(model, **settings)), batch)


def test_alignment(dataset):
    encoder = make_encoder(dataset, "mua")
    model = ImageAligner(
        encoder=encoder.config, image_encoder="timm:net", preprocessing_hash="abc", dim_embedding=12, num_queries=2,
        dim_hidden=16, linear_path=True,
    )  # fmt: skip
    model.set_encoder(encoder)
    model.fit_embedding_statistics(torch.randn(20, 12))
    masked = [collate([MaskedTokenizer(encoder, SCHEMES)(window) for window in windows(dataset)])]
    batch = {
        "model_inputs": {k: x for k, x in collate([encoder.tokenize(w) for w in windows(dataset)[::2]]).items()},
        "target": torch.randn(2, 12),
        "image_id": ["a", "b"],
        "image_index": torch.tensor([0, 1]),
        "linear": torch.randn(2, 12),
    }
    augmentation = {"average_repeats": True, "time_jitter": 1, "noise": 0.1, "unit_dropout": 0.3}
    config = SimpleNamespace(
        loss="info_nce", regression_weight=1.0, augment=SimpleNamespace(**augmentation), weight_decay=0.0,
        stage1=SimpleNamespace(epochs=0, lr=1e-3),
        stage2=SimpleNamespace(epochs=1, lr=1e-4, free_layers=1, replay_weight=0.5, l2sp_weight=0.1),
    )  # fmt: skip
    module = on_trainer(AlignmentModule(model, config, masked, (None, None)))
    with pretend_device() as waits:
        to_device(module)
        module.pretrained = to_device(module.pretrained)
        batch = moved(module, batch)
        waits.clear()
        step(module, batch)
        with torch.no_grad():
            module.eval()
            module.validation_step(batch, 0)
        assert waits == []


def make_behavior_decoder(reader, dataset):
    decoder = BehaviorDecoder(encoder=reader.config, dim_out=2)
    decoder.init_vocabs(dataset)
    return decoder


@pytest.mark.parametrize(
    "make",
    [
        make_behavior_decoder,
        lambda reader, dataset: GRUDecoder(reader, dataset, dim_out=2, dim=8),
        lambda reader, dataset: POYODecoder(reader, dataset, dim_out=2, num_latents_per_step=2),
    ],
    ids=["pretrained", "GRU", "POYO"],
)
def test_decoding(dataset, make):
    one = copy.copy(dataset)
    one._recording_ids = ["one"]
    decoder = make(make_encoder(one, "spike_counts"), one)
    inputs = collate([decoder.tokenize(window) for window in windows(dataset)[::2]])
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[1, 15:] = False
    batch = {"model_inputs": inputs, "target_values": torch.randn(2, 20, 2), "target_mask": mask}
    check_module(on_trainer(DecodingModule(decoder, MSELoss(), lr=1e-3, weight_decay=0.0)), batch)


# ---------------------------------------------------------------------- predictions


@torch.no_grad()
def test_a_forecast_is_rolled_out_without_waiting(dataset):
    model = make_horizon(dataset, "spike_counts", "embedding").eval()
    inputs = collate([model.tokenize(window) for window in windows(dataset, 0.8)])
    expected = model.generate(**inputs)
    with pretend_device() as waits:
        rolled = to_device(model).generate(**to_device(inputs))
        assert waits == []
    torch.testing.assert_close(rolled.value, expected, rtol=2e-3, atol=2e-3)


@torch.no_grad()
def test_embeddings_of_windows_are_predicted_without_waiting(dataset):
    model = make_encoder(dataset, "mua").eval()
    inputs = collate([model.tokenize(window) for window in windows(dataset)])
    expected = model.encode(**inputs)
    with pretend_device() as waits:
        latents = to_device(model).encode(**to_device(inputs))
        assert waits == []
    torch.testing.assert_close(latents.value, expected, rtol=2e-3, atol=2e-3)
