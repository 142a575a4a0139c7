"""Decoder training: the loss falls, a cut-off run goes on exactly, divergence ends well, bad input is refused."""

import csv
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image

from neurobridge_tb._upstream import Interval
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.encoders import ImageEncoder
from neurobridge_tb.datasets import build_recording, save_recording
from neurobridge_tb.datasets.stimuli import StimulusImages
from neurobridge_tb.engine.pictures.flow_training import PerceptualDistance, StoredPictures, train_flow
from neurobridge_tb.engine.pictures.step_training import RandomRows, Schedule, contents_of, train_steps
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.autoencoder import Autoencoder
from neurobridge_tb.generation.conditions import RandomObserver, degrade
from neurobridge_tb.generation.flow import FlowDecoder, FlowModel
from neurobridge_tb.generation.target_codes import TargetCodes
from neurobridge_tb.jobs import train_decoder as job
from neurobridge_tb.jobs.train_decoder import train_decoder

SMALL = {
    "autoencoder": {"latent_channels": 8, "encoder_channels": (8, 8, 16), "decoder_channels": (8, 8, 16, 16)},
    "network": {"grid": 2, "dim": 32, "depth": 2, "heads": 2},
}
LAYERS = {"colours@2x2": 12}


def make_encoder(device="cpu"):
    """Its maps are a picture's colours, its embedding those of the four quarters: enough to paint what is below."""
    layers = {"colours": torch.nn.Identity(), "quarters": torch.nn.AdaptiveAvgPool2d(2), "flat": torch.nn.Flatten()}
    network = torch.nn.Sequential(OrderedDict(layers))
    return ImageEncoder(network, name="timm:net", image_size=16, mean=[0.5] * 3, std=[0.5] * 3, device=device)


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(scope="module")
def pictures():
    blocks = torch.randint(0, 256, (64, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8)


def train(pictures, encoder, out, **settings):
    features = encoder.encode(pictures)
    torch.manual_seed(0)
    model = FlowModel(LAYERS, 8, **SMALL)
    model.codes.load_state_dict(TargetCodes.fit(features, LAYERS, 8).state_dict())
    codes = model.codes(features)
    pace = {"autoencoder_steps": 30, "flow_steps": 60, "log_every": 5, "checkpoint_every": 20, "lr": 5e-3}
    return train_flow(
        model, lambda size: StoredPictures(pictures, codes, size, 3), encoder, out, information=20 * torch.eye(8)[None],
        autoencoder_batch=8, flow_batch=16, seed=3, **{**pace, **settings},
    )  # fmt: skip


def losses(path):
    with path.open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def test_the_losses_fall_and_the_export_loads(pictures, encoder, tmp_path):
    lines = []
    train(pictures, encoder, tmp_path / "model", progress=lambda *line: lines.append(line))
    curve = losses(tmp_path / "model" / "loss.csv")
    assert len(curve) == 12 and curve[-1] < 0.8 * curve[0]
    stages = [line[0].split(",")[0] for line in lines]
    assert stages == [f"Autoencoder: step {k}" for k in range(5, 31, 5)] + [f"Flow: step {k}" for k in range(5, 61, 5)]
    assert float(lines[5][0].split()[-1]) < 0.95 * float(lines[0][0].split()[-1]) and lines[-1][1:] == (60, 60)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["encoder"] == "timm:net" and config["training"]["flow"] == {"steps": 60}
    decoder = FlowDecoder.load(tmp_path / "model")
    painted = decoder.generate(encoder.encode(pictures))[:, 0].float()
    right, wrong = ((painted - seen.float()).abs().mean((1, 2, 3)) for seen in (pictures, pictures.roll(1, 0)))
    assert right.mean() < wrong.mean() and (right < wrong).float().mean() > 0.6


SHORT = {"autoencoder_steps": 15, "flow_steps": 25, "checkpoint_every": 10}


@pytest.fixture(scope="module")
def whole(pictures, encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    return train(pictures, encoder, folder, **SHORT), losses(folder / "loss.csv")


@pytest.mark.parametrize("cut_at", ["Autoencoder: step 15,", "Flow: step 25,"])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(pictures, encoder, tmp_path, whole, cut_at):
    def cut(stage, *rest):
        if stage.startswith(cut_at):
            raise ConnectionError

    with pytest.raises(ConnectionError):
        train(pictures, encoder, tmp_path / "cut", progress=cut, **SHORT)
    assert not (tmp_path / "cut").exists()
    resumed = train(pictures, encoder, tmp_path / "cut", **SHORT)
    for name, value in whole[0].model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert losses(tmp_path / "cut" / "loss.csv") == whole[1]


def line_fit(folder, steps=40, spoil=None):
    """Train a line through the origin; from step ``spoil`` on the targets are infinite."""
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1, bias=False)

    def loss(rows, rng):
        x = rows.float()[:, None] / 10
        target = 2 * x if spoil is None or rng.initial_seed() % 1_000_003 < spoil else x * torch.inf
        return (model(x) - target).square().mean()

    schedule = Schedule(steps, lr=0.05, log_every=5)
    notes = train_steps(model, loss, RandomRows(10, 8, 0), folder, schedule, settings={}, seed=0)
    return model.weight.item(), notes


def test_training_that_diverges_ends_with_the_last_finite_average(tmp_path, caplog):
    weight, notes = line_fit(tmp_path / "spoilt", spoil=20)
    assert notes == {"steps": 20, "diverged at step": 20} and "diverged at step 20" in caplog.text
    assert np.isfinite(weight) and abs(weight - 2) < abs(line_fit(tmp_path / "short", steps=1)[0] - 2)
    assert line_fit(tmp_path / "spoilt", spoil=20) == (weight, notes)  # done is done
    with pytest.raises(InputError, match="finite loss at the first step"):
        line_fit(tmp_path / "at once", spoil=0)


def test_other_settings_do_not_resume_a_training_state(tmp_path):
    line_fit(tmp_path / "run")
    with pytest.raises(InputError, match=r"steps 40 \(now 41\)"):
        line_fit(tmp_path / "run", steps=41)
    with pytest.raises(InputError, match="at least one step"):
        Schedule(0)


def test_a_training_that_left_no_checkpoint_is_begun_anew_with_whatever_settings(tmp_path):
    with pytest.raises(InputError, match="finite loss at the first step"):
        line_fit(tmp_path / "run", spoil=0)
    assert line_fit(tmp_path / "run", steps=41)[1] == {"steps": 41}


def test_damaged_states_are_trained_anew_or_named(tmp_path, caplog):
    expected = line_fit(tmp_path / "run")
    trained = tmp_path / "run" / "trained.pt"
    trained.write_bytes(trained.read_bytes()[:-50])
    assert line_fit(tmp_path / "run") == expected and str(trained) in caplog.text
    (tmp_path / "run" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="a JSON object in .*settings.json"):
        line_fit(tmp_path / "run")


def test_batches_depend_on_their_step_alone(pictures):
    one, two = (StoredPictures(pictures, torch.arange(64.0)[:, None], 8, seed=1) for _ in range(2))
    assert torch.equal(one[5]["codes"], two[5]["codes"]) and not torch.equal(one[5]["codes"], one[6]["codes"])
    rows = one[5]["codes"][:, 0].long()
    assert torch.equal(one[5]["pictures"], pictures[rows])


def test_latents_are_scaled_and_pictures_of_any_multiple_of_eight_come_back(pictures):
    torch.manual_seed(0)
    model = Autoencoder(**SMALL["autoencoder"])
    model.fit_scale(pictures)
    latents = model.encode(pictures)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(8), rtol=1e-3, atol=0)
    assert latents.shape == (64, 8, 2, 2) and model.decode(latents[:2]).shape == (2, 3, 16, 16)
    assert model.decode(model.encode(torch.zeros(1, 3, 24, 40))).shape == (1, 3, 24, 40)


def test_perceptual_distance_is_in_deviations_and_leads_to_the_picture_seen(pictures, encoder):
    distance = PerceptualDistance(encoder, ["colours", "final"], pictures)
    made = pictures[:4].float().requires_grad_()
    assert distance(made, pictures[:4].float()) == 0
    shifted = distance(made + 5, pictures[:4].float())
    shifted.backward()
    deviation = pictures.float().std((0, 2, 3)).mean()
    torch.testing.assert_close(shifted.detach(), 5 / deviation, rtol=0.1, atol=0)
    assert (made.grad > 0).float().mean() > 0.9


def test_an_observer_gives_posterior_means_with_the_reliability_that_it_claims():
    """Truth regressed on the posterior mean has slope one; the mean's variance is the reliability."""
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(3, 3, generator=rng)
    observer = RandomObserver((root @ root.T)[None])
    codes = torch.randn(60000, 3, generator=rng)
    mean, reliability = observer(codes, rng)
    known = (reliability == 1).all(1)
    assert known.float().mean() == pytest.approx(0.25, abs=0.01) and torch.equal(mean[known], codes[known])
    codes, mean, reliability = codes[~known], mean[~known], reliability[~known]
    torch.testing.assert_close((codes * mean).sum(0) / mean.square().sum(0), torch.ones(3), rtol=0.03, atol=0)
    torch.testing.assert_close(mean.square().mean(0), reliability.mean(0), rtol=0.03, atol=0)
    assert 0 < reliability.min() and reliability.max() < 1


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


def test_a_folder_is_trained_on_without_the_test_images_of_a_recording(tmp_path, monkeypatch, encoder):
    ids = [f"dog/{k}.png" for k in range(4)]
    (tmp_path / "images" / "dog").mkdir(parents=True)
    for k, image_id in enumerate(ids):
        Image.fromarray(np.full((10, 30, 3), 50 * k, np.uint8)).save(tmp_path / "images" / image_id)
    features = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    made_by = {"encoder": "timm:net", "preprocessing_hash": encoder.preprocessing_hash}
    EmbeddingCache(ids, features, **made_by).save(tmp_path / "e.h5")
    times = np.arange(4.0)
    data = build_recording(
        brainset_id="t", session_id="r", subject_id="s", units={"id": ["u"]}, mua=(np.zeros((4, 1)), 1.0)
    )
    data.presentations = Interval(
        start=times, end=times + 1, image_id=np.array(ids), split=np.array(["train", "test", "valid", "train"])
    )
    save_recording(data, tmp_path / "r.h5")
    given = []
    monkeypatch.setattr(job, "load_image_encoder", lambda *a, **k: encoder)
    monkeypatch.setattr(job, "train_flow", lambda *a, **k: given.extend([*a, k]))
    settings = {"images": tmp_path / "images", "run_dir": tmp_path / "m", "steps": 8}
    (tmp_path / "images" / "a copy.png").write_bytes((tmp_path / "images" / ids[1]).read_bytes())
    train_decoder(embeddings=tmp_path / "e.h5", exclude=tmp_path / "r.h5", **settings)
    (tmp_path / "images" / "a copy.png").unlink()
    model, batches, used, _, asked = given
    kept = [ids[k] for k in (0, 2, 3)]
    assert set(asked["described"]["image_files"]) == StimulusImages(tmp_path / "images", kept).fingerprints()
    files, noted = StimulusImages(tmp_path / "images", kept).fingerprints(), asked["settings"]["contents"]
    assert noted == contents_of(files, features[[0, 2, 3]]) != contents_of(files, features[[0, 2, 1]])
    stored = batches(5)
    assert stored.pictures.shape == (3, 3, 64, 64) and stored.pictures[1].unique().tolist() == [100]
    torch.testing.assert_close(stored.codes, model.codes(features[[0, 2, 3]]))
    assert (asked["autoencoder_steps"], asked["flow_steps"], used) == (2, 6, encoder)
    shipped = FlowDecoder.load().model  # where it starts, but for what depends on the codes
    assert torch.equal(model.network.blocks[0].qkv.weight, shipped.network.blocks[0].qkv.weight)
    assert not torch.equal(model.network.layout.bias, shipped.network.layout.bias)
    cache = EmbeddingCache(ids, features, encoder="timm:net", preprocessing_hash="32px-other")
    cache.save(tmp_path / "other.h5")
    with pytest.raises(InputError, match="32 px"):
        train_decoder(embeddings=tmp_path / "other.h5", **settings)


def test_bad_input_is_refused_before_anything_is_written(pictures, encoder, tmp_path):
    with pytest.raises(InputError, match="16, 16"):
        train(pictures.repeat(1, 1, 2, 2), encoder, tmp_path / "m")
    with pytest.raises(InputError, match="backend small"):
        train_decoder(images=tmp_path, embeddings=tmp_path / "e.h5", run_dir=tmp_path / "m", backend="small")
    with pytest.raises(InputError, match="weights for flow"):
        train_decoder(images=tmp_path, embeddings=tmp_path / "e.h5", run_dir=tmp_path / "m", weights="x")
    assert not list(tmp_path.iterdir())
