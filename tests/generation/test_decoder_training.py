"""Decoder training: the loss falls, a cut-off run goes on, the export is whole, bad input is refused."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from neurobridge_tb._upstream import Interval
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.autoencoder import Autoencoder
from neurobridge_tb.generation.conditions import degrade
from neurobridge_tb.generation.small_diffusion import SmallDiffusion
from neurobridge_tb.jobs import train_decoder as decoder
from neurobridge_tb.jobs.train_decoder import train_decoder, train_small_diffusion

NETWORK = {"image_size": 16, "patch": 2, "channels": (32, 32), "code_dim": 6, "tokens": 2, "token_dim": 16}


def encode(images):
    """Embeddings are the mean colours of the four quarters: enough to paint the pictures below."""
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="module")
def images():
    blocks = torch.randint(0, 256, (64, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8)


def train(images, out, **settings):
    settings = {"network": NETWORK, "batch_size": 16, "log_every": 5, "lr": 4e-3, "seed": 3, **settings}
    embeddings = settings.pop("embeddings", encode(images))
    return train_small_diffusion(images, embeddings, out, encoder_name="timm:net", preprocessing_hash="abc", **settings)


def losses(path):
    with path.open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def test_the_loss_falls_and_the_export_loads(images, tmp_path):
    lines = []
    train(images, tmp_path / "model", max_steps=40, progress=lambda *line: lines.append(line))
    curve = losses(tmp_path / "model" / "loss.csv")
    assert len(curve) == 8 and curve[-1] < 0.8 * curve[0]
    assert [line[0].split(",")[0] for line in lines] == [f"Training: step {k}" for k in range(5, 41, 5)]
    assert lines[-1][1:] == (1, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["encoder"] == "timm:net" and config["training"]["steps"] == 40
    painted = SmallDiffusion.load(tmp_path / "model", steps=5).generate(encode(images[:4]))
    true, other = (painted[:, 0].float() - x.float() for x in (images[:4], images[4:8]))
    assert true.abs().mean() < 0.7 * other.abs().mean()


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(images, tmp_path):
    whole = train(images, tmp_path / "whole", max_steps=20, log_every=1)

    def cut(stage, *rest):
        if "step 15," in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(images, tmp_path / "cut", max_steps=20, log_every=1, progress=cut)
    assert not (tmp_path / "cut").exists()
    resumed = train(images, tmp_path / "cut", max_steps=20, log_every=1)
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert losses(tmp_path / "cut" / "loss.csv") == pytest.approx(losses(tmp_path / "whole" / "loss.csv"))


def save_autoencoder(folder, seed):
    torch.manual_seed(seed)
    model = Autoencoder()
    folder.mkdir()
    for half in ("encoder", "decoder"):
        save_file(getattr(model, half).state_dict(), folder / f"taef2_{half}.safetensors")
    return folder


def test_an_autoencoder_is_read_as_published_and_squashes_its_latents(images, tmp_path):
    """Names and shapes of TAEF2's files: 79 tensors each, as its page counts them."""
    model = Autoencoder.load(save_autoencoder(tmp_path / "a", 0))
    sizes = [sum(p.numel() for p in half.parameters()) for half in (model.encoder, model.decoder)]
    assert sizes == [1_338_528, 1_338_499]
    assert [len(half.state_dict()) for half in (model.encoder, model.decoder)] == [79, 79]
    assert {"0.weight", "1.conv.0.weight", "2.weight", "11.pool.0.weight", "14.bias"} <= set(model.encoder.state_dict())
    assert {"1.weight", "3.pool.3.weight", "7.weight", "19.bias"} <= set(model.decoder.state_dict())
    latents = model.encode(images[:2])
    assert latents.shape == (2, 32, 2, 2) and latents.abs().max() <= 4
    assert model.decode(latents).shape == images[:2].shape
    torch.testing.assert_close(model.decode(latents * 1e4), model.decode(latents * 1e6), rtol=0, atol=1)


def test_in_latents_it_trains_saves_loads_and_wants_the_same_autoencoder(images, tmp_path):
    folder, lines = save_autoencoder(tmp_path / "a", 0), []
    made = train(images, tmp_path / "m", max_steps=3, network=None, autoencoder=Autoencoder.load(folder),
                 progress=lambda *line: lines.append(line))  # fmt: skip
    assert lines[0] == ("Encoding images", len(images), len(images)) and len(lines) == 1
    embeddings = encode(images[:3])
    back = SmallDiffusion.load(tmp_path / "m")
    pictures = back.generate(embeddings, num_samples=2)
    assert pictures.shape == (3, 2, 3, 16, 16)
    assert (pictures.int() - made.generate(embeddings, num_samples=2).int()).abs().float().mean() < 2
    init = images[:3]
    same = SmallDiffusion.load(tmp_path / "m", strength=0.0).generate(embeddings, init_images=init)
    assert torch.equal(same[:, 0], back.autoencoder.decode(back.autoencoder.encode(init)).round().to(torch.uint8))
    folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="taef2_encoder"):
        SmallDiffusion.load(tmp_path / "m")
    SmallDiffusion.load(tmp_path / "m", autoencoder=tmp_path / "moved")
    other = save_autoencoder(tmp_path / "b", 1)
    with pytest.raises(InputError, match="fingerprint"):
        SmallDiffusion.load(tmp_path / "m", autoencoder=other)


def test_other_settings_do_not_resume_a_training_state(images, tmp_path):
    def cut(stage, *rest):
        if "step 11," in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(images, tmp_path / "m", max_steps=20, log_every=1, progress=cut)
    with pytest.raises(InputError, match="training state"):
        train(images, tmp_path / "m", max_steps=20, lr=1e-4)


def test_degraded_codes_are_what_a_calibrated_regression_predicts():
    """Their regression on the truth and the truth's regression on them both have the slopes of theory."""
    rng = torch.Generator().manual_seed(0)
    spread = torch.tensor([2.0, 0.5])
    codes = torch.randn(40000, 2, generator=rng) * spread
    before = codes.clone()
    made = degrade(codes, spread, 0.5, rng)
    assert torch.equal(codes, before)
    slope = (made * codes).mean(0) / made.square().mean(0)  # truth on prediction: calibrated means 1
    torch.testing.assert_close(slope, torch.ones(2), rtol=0.02, atol=0)
    assert (made == codes).all(1).float().mean() == pytest.approx(0.5, abs=0.02)


def test_a_folder_is_trained_on_without_the_test_images_of_a_recording(tmp_path, monkeypatch):
    ids = [f"dog/{k}.png" for k in range(4)]
    (tmp_path / "images" / "dog").mkdir(parents=True)
    for k, image_id in enumerate(ids):
        Image.fromarray(np.full((10, 30, 3), 50 * k, np.uint8)).save(tmp_path / "images" / image_id)
    EmbeddingCache(ids, torch.arange(4.0)[:, None], encoder="net", preprocessing_hash="h").save(tmp_path / "e.h5")
    times = np.arange(4.0)
    data = build_recording(
        brainset_id="t", session_id="r", subject_id="s", units={"id": ["u"]}, mua=(np.zeros((4, 1)), 1.0)
    )
    data.presentations = Interval(
        start=times, end=times + 1, image_id=np.array(ids), split=np.array(["train", "test", "valid", "train"])
    )
    save_recording(data, tmp_path / "r.h5")
    given = []
    monkeypatch.setattr(decoder, "train_small_diffusion", lambda *a, **k: given.extend([*a, k]))
    train_decoder(
        images=tmp_path / "images", embeddings=tmp_path / "e.h5", run_dir=tmp_path / "m", exclude=tmp_path / "r.h5"
    )
    pictures, embeddings = given[:2]
    assert embeddings[:, 0].tolist() == [0, 2, 3] and given[-1]["encoder_name"] == "net"
    assert pictures.shape == (3, 3, 64, 64) and pictures[1].unique().tolist() == [100]


def test_bad_input_is_refused(images, tmp_path):
    with pytest.raises(InputError, match="max_minutes"):
        train(images, tmp_path / "m")
    with pytest.raises(InputError, match="16, 16"):
        train(images[..., :8], tmp_path / "m", max_steps=1)
    with pytest.raises(InputError, match="one an image"):
        train(images, tmp_path / "m", max_steps=1, embeddings=torch.zeros(3, 12))
    assert not list(tmp_path.iterdir())
