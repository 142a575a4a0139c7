"""Picture decoders on a pretend accelerator: they draw what the CPU draws, and no step of their training waits."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from pretend_device import DEVICE, DeviceTensor, pretend_device
from test_decoder_training import LAYERS, SMALL, make_encoder
from test_decoder_training import encoder as encoder
from test_decoder_training import pictures as pictures
from test_generators import DIM, make_flow, make_nearest, make_ridge
from test_pretrained_backends import N, load
from test_pretrained_backends import weights as weights

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.datasets.stimuli import StimulusImages
from neurobridge_tb.engine.pictures import adapter_training, flow_training, step_training
from neurobridge_tb.engine.pictures.flow_training import StoredPictures, train_flow
from neurobridge_tb.engine.pictures.step_training import Schedule
from neurobridge_tb.generation.flow import FlowModel
from neurobridge_tb.generation.target_codes import TargetCodes


def difference(one, two):
    return (one.int() - two.int()).abs().max()


def embeddings():
    return torch.randn(3, DIM, generator=torch.Generator().manual_seed(1)) * 3 + 1


@pytest.mark.parametrize("make", [make_flow, make_nearest, make_ridge])
def test_embeddings_on_a_device_are_drawn(make):
    expected = make().generate(embeddings(), num_samples=2)
    with pretend_device():
        generator = make(**{"device": DEVICE} if make is make_flow else {})
        drawn = generator.generate(embeddings().to(DEVICE), num_samples=2)
        assert isinstance(next(generator.model.parameters()), DeviceTensor) if make is make_flow else True
    assert type(drawn) is torch.Tensor and difference(drawn, expected) <= 1


def test_codes_read_from_activity_are_drawn():
    mean, information = torch.randn(2, 6), 3 * torch.eye(6)
    expected = make_flow().generate(mean, information=information)
    with pretend_device():
        drawn = make_flow(device=DEVICE).generate(mean.to(DEVICE), information=information.to(DEVICE))
    assert difference(drawn, expected) <= 1


@pytest.mark.parametrize("name", ["stable_unclip", "sd_adapter", "ip_adapter"])
def test_pretrained_backends_draw(weights, name):
    init = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    expected = [load(weights, name).generate(embeddings(), init_images=start) for start in (None, init)]
    with pretend_device():
        generator = load(weights, name, device=DEVICE)
        drawn = [generator.generate(embeddings().to(DEVICE), init_images=start) for start in (None, init)]
    for ours, theirs in zip(drawn, expected, strict=True):
        assert type(ours) is torch.Tensor and difference(ours, theirs) <= 2


# ---------------------------------------------------------------------- training


class Steps:
    """Two steps in place of a training, without a Trainer; what was waited for in them, and their losses."""

    def __init__(self):
        self.waits, self.losses = None, []

    def __call__(self, model, loss, batches, work, schedule, *, seed, device, name="", workers=0, **_):
        module = step_training._StepModule(
            model, loss, batches, work, schedule, seed=seed, name=name, workers=workers, progress=lambda *_: None
        )
        optimizer = module.configure_optimizers()
        module.optimizers, module.manual_backward = lambda: optimizer, torch.Tensor.backward
        module._trainer = SimpleNamespace(should_stop=False)
        work.mkdir(parents=True)
        (work / "loss.csv").touch()
        module.training_step(batches[0], 0)  # looks whether its loss is finite
        if self.waits is not None:
            self.waits.clear()
        module.training_step(batches[1], 1)
        assert not self.waits
        self.losses += [float(value) for value in module.recent]
        return {"steps": 2}


@pytest.fixture
def steps(monkeypatch):
    steps = Steps()
    for module in (flow_training, adapter_training):
        monkeypatch.setattr(module, "train_steps", steps)
    return steps


class WithoutCodes(StoredPictures):
    """The encoder makes the codes of each batch."""

    def __getitem__(self, step):
        return {"pictures": super().__getitem__(step)["pictures"]}


@pytest.mark.parametrize("source", [StoredPictures, WithoutCodes])
def test_a_flow_decoder_is_trained_without_waiting(encoder, pictures, steps, source, tmp_path):
    torch.manual_seed(0)
    model = FlowModel(LAYERS, 8, **SMALL)
    features = encoder.encode(pictures)
    model.codes.load_state_dict(TargetCodes.fit(features, LAYERS, 8).state_dict())
    codes = model.codes(features)

    def train(device, encoder):
        train_flow(
            copy.deepcopy(model), lambda size: source(pictures, codes, size, 3), encoder, tmp_path / "out",
            autoencoder_steps=9, flow_steps=9, information=20 * torch.eye(8)[None], autoencoder_batch=8, flow_batch=16,
            device=device, seed=3,
        )  # fmt: skip
        shutil.rmtree(tmp_path / "out")

    train("cpu", encoder)
    with pretend_device() as steps.waits:
        train(DEVICE, make_encoder(DEVICE))
    assert len(steps.losses) == 8
    torch.testing.assert_close(steps.losses[4:], steps.losses[:4], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", ["sd_adapter"])
def test_an_adapter_is_trained_without_waiting(weights, steps, backend, tmp_path):
    cache = EmbeddingCache.load(weights["embeddings"])
    images = StimulusImages(weights["images"], cache.ids)
    assert len(images) == N

    def train(device):
        train_adapter = adapter_training.train_adapter
        train_adapter(backend, images, cache, tmp_path / "out", Schedule(9), weights=str(weights["sd"]), device=device)
        shutil.rmtree(tmp_path / "out")

    train("cpu")
    with pretend_device() as steps.waits:
        train(DEVICE)
    assert len(steps.losses) == 4
    torch.testing.assert_close(steps.losses[2:], steps.losses[:2], rtol=1e-3, atol=1e-3)
