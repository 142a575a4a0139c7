"""Generators: one interface, no leaks between items, determinism, round trips, and what they refuse."""

import json
import subprocess
import sys

import pytest
import torch

from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.base import generator_names, load_generator, register_generator
from neurobridge_tb.generation.batches import draw_items
from neurobridge_tb.generation.flow import FlowDecoder, FlowModel
from neurobridge_tb.generation.nearest import NearestImage
from neurobridge_tb.generation.ridge_pixels import RidgePixels
from neurobridge_tb.generation.target_codes import TargetCodes

DIM = 12


SMALL = {
    "autoencoder": {"encoder_channels": (8, 8, 8), "decoder_channels": (8, 8, 8, 8)},
    "network": {"grid": 2, "dim": 16, "depth": 2, "heads": 2},
}


def make_flow(**settings):
    """A tiny decoder with random weights, none of them zero, as after training."""
    torch.manual_seed(0)
    model = FlowModel({"a": 8, "final": DIM - 8}, 6, **SMALL)
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.codes.load_state_dict(TargetCodes.fit(torch.randn(50, DIM) * 3 + 1, model.codes.layers, 6).state_dict())
    settings = {"steps": 4, "encoder_name": "timm:net", "preprocessing_hash": "abc", **settings}
    return FlowDecoder(model, **settings)


def make_nearest():
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return NearestImage(torch.randn(20, DIM, generator=rng), images)


def make_ridge():
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return RidgePixels.fit(torch.randn(40, DIM, generator=rng), images, resolution=8)


@pytest.fixture(scope="module", params=[make_flow, make_nearest, make_ridge])
def generator(request):
    return request.param()


@pytest.fixture(scope="module")
def flow():
    return make_flow()


@pytest.fixture
def embeddings():
    return torch.randn(3, DIM, generator=torch.Generator().manual_seed(1)) * 3 + 1


def test_shape_type_and_samples(generator, embeddings):
    pictures = generator.generate(embeddings, num_samples=2)
    assert pictures.shape == (3, 2, 3, 16, 16) and pictures.dtype == torch.uint8


def test_same_seed_same_pictures(generator, embeddings):
    one, two = (generator.generate(embeddings, num_samples=2, seed=5) for _ in range(2))
    assert torch.equal(one, two)


def test_no_item_sees_its_batch_mates(generator, embeddings):
    changed = embeddings.clone()
    changed[1] = -20 * embeddings[1]
    init = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    other_init = init.clone()
    other_init[1] = 255
    one = generator.generate(embeddings, num_samples=2, init_images=init)
    two = generator.generate(changed, num_samples=2, init_images=other_init)
    assert torch.equal(one[[0, 2]], two[[0, 2]])
    assert not torch.equal(one[1], two[1])


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, DIM + 1), torch.zeros(DIM), torch.zeros(0, DIM), torch.full((1, DIM), torch.nan)]
)
def test_embeddings_that_do_not_fit_are_refused(generator, wrong):
    with pytest.raises(InputError, match="embeddings"):
        generator.generate(wrong)


def test_seed_and_sample_number_choose_the_noise(flow, embeddings):
    pictures = flow.generate(embeddings, num_samples=2, seed=0)
    assert not torch.equal(pictures[:, 0], pictures[:, 1])
    assert not torch.equal(pictures, flow.generate(embeddings, num_samples=2, seed=1))
    assert torch.equal(pictures[:, :1], flow.generate(embeddings, num_samples=1, seed=0))


def test_batch_size_does_not_change_the_pictures(flow, embeddings):
    whole = flow.generate(embeddings, num_samples=2).int()
    pieces = make_flow(batch_size=1).generate(embeddings, num_samples=2).int()
    assert (whole - pieces).abs().max() <= 1  # rounding


def test_what_is_known_and_how_well_changes_the_pictures(flow, embeddings):
    pictures = flow.generate(embeddings)
    assert not torch.equal(pictures, flow.generate(embeddings + 3))
    codes = flow.encode(embeddings)
    certain, vague = (flow.generate(codes, information=torch.eye(6) * trust) for trust in (1e6, 0.1))
    torch.testing.assert_close(certain, pictures, rtol=0, atol=1)
    assert not torch.equal(vague, pictures)


def test_one_step_draws_the_mean_whatever_the_noise(embeddings):
    """The network's own output for pure noise is where a single Euler step of unit length ends."""
    flow = make_flow(steps=1)
    network, condition = flow.model.network, flow.encode(embeddings)
    noise = torch.randn(3, 16, 2, 2)
    known = {"condition": condition, "reliability": torch.ones(3, 6)}
    ends = network.sample(noise=noise, steps=1, **known)
    torch.testing.assert_close(ends, network(noisy=noise, time=torch.zeros(3), **known))


def test_of_all_candidates_the_most_likely_is_kept(embeddings, monkeypatch):
    """Against the Gaussian log-likelihood itself, of an observation y = c + noise of covariance inverse to M."""
    flow = make_flow(candidates=3)
    codes, mean = torch.randn(3, 6, 6), torch.randn(3, 6)
    root = torch.randn(6, 6)
    information = root @ root.T
    vars(flow)["_encoder"] = Named()
    monkeypatch.setattr(flow.model.codes, "forward", lambda features: codes.flatten(0, 1))
    drawn = torch.arange(18).view(3, 6, 1, 1, 1).to(torch.uint8)
    observed = mean @ (torch.eye(6) + torch.linalg.inv(information)).T
    noise = torch.distributions.MultivariateNormal(torch.zeros(6), precision_matrix=information)
    likelihood = noise.log_prob(observed[:, None] - codes)
    kept = flow._choose(drawn, flow._fit(mean, information)).view(3, 2)
    expected = likelihood.unflatten(1, (2, 3)).argmax(2) + torch.arange(3)[:, None] * 6 + torch.tensor([0, 3])
    assert torch.equal(kept.long(), expected)
    nearest = ((codes - mean[:, None]).square() * flow.model.codes.variance).sum(-1)
    expected = nearest.unflatten(1, (2, 3)).argmin(2) + torch.arange(3)[:, None] * 6 + torch.tensor([0, 3])
    assert torch.equal(flow._choose(drawn, flow._fit(mean, None)).view(3, 2).long(), expected)


class Named:
    """An encoder of which nothing but the calls matter."""

    def layers(self, names):
        return names

    def targets(self, images, layers):
        return {layer: torch.zeros(len(images), 1) for layer in layers}


def test_a_full_memory_halves_the_batch_and_other_errors_pass():
    asked = []

    def draw(rows, generators):
        asked.append(len(rows))
        if len(rows) > 2:
            torch.empty(10**15)  # the allocator's own error
        return torch.stack([torch.rand(3, 2, 2, generator=g) for g in generators]) + rows.view(-1, 1, 1, 1)

    with pytest.warns(UserWarning, match="batches of 2"):
        drawn = draw_items(3, 3, draw, seed=4, batch_size=32)
    assert asked == [9, 4, 2, 2, 2, 2, 1]
    torch.testing.assert_close(drawn, draw_items(3, 3, draw, seed=4, batch_size=1))
    assert drawn.shape == (3, 3, 3, 2, 2) and drawn.floor()[:, :, 0, 0, 0].tolist() == [[k] * 3 for k in range(3)]
    with pytest.raises(RuntimeError, match="allocat"):
        draw_items(1, 1, lambda rows, generators: torch.empty(10**15), seed=0, batch_size=1)
    with pytest.raises(RuntimeError, match="shape"):
        draw_items(2, 1, lambda rows, generators: torch.zeros(2, 3) @ torch.zeros(2, 3), seed=0, batch_size=2)


@pytest.mark.parametrize("settings", [{"candidates": 0}, {"steps": 0}, {"guidance": -1.0}, {"guidance": torch.nan}])
def test_settings_out_of_bounds_are_refused(settings):
    with pytest.raises(InputError, match="at least one"):
        make_flow(**settings)


def test_a_saved_decoder_draws_the_same(flow, embeddings, tmp_path):
    flow.save(tmp_path / "model", training={"steps": 3})
    back = FlowDecoder.load(tmp_path / "model", encoder_name="timm:net", preprocessing_hash="abc", steps=4)
    difference = back.generate(embeddings).int() - flow.generate(embeddings).int()
    assert difference.abs().float().mean() < 2  # weights are stored in half precision
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["encoder"], config["preprocessing_hash"]) == ("timm:net", "abc")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_model_of_another_encoder_or_file_is_refused(flow, tmp_path):
    flow.save(tmp_path / "model")
    with pytest.raises(InputError, match="open_clip:ViT-L-14/openai"):
        FlowDecoder.load(tmp_path / "model", encoder_name="open_clip:ViT-L-14/openai")
    with pytest.raises(InputError, match="preprocessing xyz"):
        FlowDecoder.load(tmp_path / "model", preprocessing_hash="xyz")
    with pytest.raises(InputError, match="model folder"):
        FlowDecoder.load(tmp_path / "nothing")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="decoder of backend flow"):
        FlowDecoder.load(tmp_path / "model")


def test_what_half_precision_cannot_hold_is_said(embeddings, tmp_path):
    flow = make_flow()
    flow.model.network.patch_out.weight.data[0, 0] = 1e5
    with pytest.raises(InputError, match="patch_out"):
        flow.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
    flow.model.autoencoder.scale.fill_(torch.inf)
    with pytest.raises(InputError, match="finite pixel values"):
        flow.generate(embeddings)


def test_codes_are_whitened_and_all_layers_weigh_the_same():
    torch.manual_seed(0)
    hidden = torch.randn(400, 3)
    parts = [hidden @ torch.randn(3, 5) * 100 + 7, hidden @ torch.randn(3, 9) * 0.01]
    features = torch.cat(parts, 1)
    codes = TargetCodes.fit(features, {"a": 5, "b": 9}, 3)
    made = codes(features)
    torch.testing.assert_close(made.T @ made / 400, torch.eye(3), rtol=0, atol=1e-3)
    assert codes.variance.sum() == pytest.approx(2, rel=1e-4)  # of two layers, each of variance one
    again = TargetCodes.fit(torch.cat([parts[0] * 30 - 2, parts[1]], 1), {"a": 5, "b": 9}, 3)
    torch.testing.assert_close(again.variance, codes.variance, rtol=1e-3, atol=0)
    assert TargetCodes.fit(features[:3], {"a": 5, "b": 9}, 500).projection.shape == (14, 2)


def test_nearest_finds_by_direction_not_by_length():
    nearest = make_nearest()
    picture = nearest.generate(nearest.embeddings[[4, 9]] * 50)
    assert torch.equal(picture[:, 0], nearest.images[[4, 9]])
    with pytest.raises(InputError, match="20 samples"):
        nearest.generate(nearest.embeddings[:1], num_samples=21)
    with pytest.raises(InputError, match="at least one"):
        NearestImage(torch.zeros(0, 4), torch.zeros(0, 3, 8, 8, dtype=torch.uint8))


def test_ridge_recovers_a_linear_code_of_the_picture():
    torch.manual_seed(0)
    blocks = torch.randint(0, 256, (300, 3, 2, 2)).float()
    images = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8)
    features = blocks.flatten(1) @ torch.randn(12, 30) + 0.1 * torch.randn(300, 30)
    ridge = RidgePixels.fit(features[:250], images[:250], resolution=4)
    made = ridge.generate(features[250:])[:, 0].float()
    seen = images[250:].float()
    both = torch.corrcoef(torch.stack([made.flatten(), seen.flatten()]))
    assert both[0, 1] > 0.9


def test_ridge_shrinks_to_the_mean_picture_when_features_are_noise():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    ridge = RidgePixels.fit(torch.randn(60, 200), images, resolution=4)
    made = ridge.generate(torch.randn(10, 200))
    assert made.float().std(0).mean() < 25 < images.float().std(0).mean()


def test_ridge_refuses_what_does_not_fit():
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match="as many pictures"):
        RidgePixels.fit(torch.zeros(4, 2), images)
    with pytest.raises(InputError, match="finite"):
        RidgePixels.fit(torch.full((3, 2), torch.nan), images)


def test_generators_are_found_by_name_and_registered_once(monkeypatch):
    from neurobridge_tb.generation import base

    monkeypatch.setattr(base, "_generators", dict(base._generators))
    with pytest.raises(InputError, match="flow, ip_adapter, nearest, ridge_pixels, sd_adapter, stable_unclip"):
        load_generator("stable_diffusion")
    register_generator("mine", make_nearest)
    assert "mine" in generator_names()
    assert isinstance(load_generator("mine"), NearestImage)
    with pytest.raises(InputError, match="not taken"):
        register_generator("nearest", make_nearest)


def test_generation_imports_nothing_heavy():
    code = (
        "import sys, neurobridge_tb.generation.flow;"
        "print([m for m in ('torchvision', 'timm', 'diffusers', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
