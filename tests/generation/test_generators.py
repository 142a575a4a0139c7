"""Generators: one interface, no leaks between items, determinism, round trips, and what they refuse."""

import json
import subprocess
import sys

import pytest
import torch

from neurobridge_tb.alignment.encoders import ImageEncoder
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.base import generator_names, load_generator, register_generator
from neurobridge_tb.generation.batches import draw_items
from neurobridge_tb.generation.nearest import NearestImage
from neurobridge_tb.generation.ridge_pixels import RidgePixels
from neurobridge_tb.generation.small_diffusion import SmallDiffusion

DIM = 12


def make_diffusion(**settings):
    """A tiny network with random weights; its output layer is not zero, as after training."""
    from neurobridge_tb.generation.conditional_unet import ConditionalUNet

    torch.manual_seed(0)
    network = ConditionalUNet(
        embedding_dim=DIM, image_size=16, patch=2, channels=(32, 32), code_dim=6, tokens=2, token_dim=16
    )
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.05)
    embeddings = torch.randn(50, DIM) * 3 + 1
    images = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    network.fit_condition(embeddings, images)
    settings = {"steps": 4, "encoder_name": "timm:net", "preprocessing_hash": "abc", **settings}
    return SmallDiffusion(network, **settings)


def make_encoder():
    """Random features of pictures, of as many dimensions as the tiny decoder's embeddings."""
    torch.manual_seed(1)
    layers = (torch.nn.Conv2d(3, 8, 5, 2), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(8 * 6 * 6, DIM))
    return ImageEncoder(torch.nn.Sequential(*layers), name="timm:net", image_size=16, mean=[0.5] * 3, std=[0.5] * 3)


def make_guided(embedding_guidance=0.3):
    encoder, settings = make_encoder(), {"guidance": 1.0, "embedding_guidance": embedding_guidance}
    return make_diffusion(encoder=encoder, preprocessing_hash=encoder.preprocessing_hash, **settings)


def make_nearest():
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return NearestImage(torch.randn(20, DIM, generator=rng), images)


def make_ridge():
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return RidgePixels.fit(torch.randn(40, DIM, generator=rng), images, resolution=8)


@pytest.fixture(scope="module", params=[make_diffusion, make_guided, make_nearest, make_ridge])
def generator(request):
    return request.param()


@pytest.fixture(scope="module")
def diffusion():
    return make_diffusion()


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


def test_seed_and_sample_number_choose_the_noise(diffusion, embeddings):
    pictures = diffusion.generate(embeddings, num_samples=2, seed=0)
    assert not torch.equal(pictures[:, 0], pictures[:, 1])
    assert not torch.equal(pictures, diffusion.generate(embeddings, num_samples=2, seed=1))
    assert torch.equal(pictures[:, :1], diffusion.generate(embeddings, num_samples=1, seed=0))


def test_batch_size_does_not_change_the_pictures(diffusion, embeddings):
    whole = diffusion.generate(embeddings, num_samples=2).int()
    pieces = make_diffusion(batch_size=1).generate(embeddings, num_samples=2).int()
    assert (whole - pieces).abs().max() <= 1  # rounding


def test_embeddings_matter_and_guidance_changes_the_pictures(diffusion, embeddings):
    pictures = diffusion.generate(embeddings)
    assert not torch.equal(pictures, diffusion.generate(embeddings + 3))
    assert not torch.equal(pictures, make_diffusion(guidance=5.0).generate(embeddings))


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


@pytest.fixture
def init():
    return torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def test_strength_zero_gives_the_init_image_back(embeddings, init):
    pictures = make_diffusion(strength=0.0).generate(embeddings, num_samples=2, init_images=init)
    assert torch.equal(pictures, init[:, None].expand(-1, 2, -1, -1, -1))


def test_more_strength_moves_away_from_the_init_image_until_it_is_forgotten(embeddings, init):
    def distance(strength):
        made = make_diffusion(strength=strength).generate(embeddings, init_images=init)
        return (made[:, 0].float() - init.float()).abs().mean()

    assert distance(0.0) < distance(0.25) < distance(0.75)
    full = make_diffusion(strength=1.0)
    torch.testing.assert_close(full.generate(embeddings, init_images=init), full.generate(embeddings), rtol=0, atol=1)


@pytest.mark.parametrize("settings", [{"strength": 1.5}, {"steps": 0}])
def test_settings_out_of_bounds_are_refused(settings):
    with pytest.raises(InputError, match="bounds"):
        make_diffusion(**settings)


def test_init_images_of_another_size_are_resized(embeddings, init):
    big = init.repeat_interleave(2, 2).repeat_interleave(2, 3)
    made = make_diffusion(strength=0.0).generate(embeddings, init_images=big)
    assert made.shape[-2:] == (16, 16)


@pytest.mark.parametrize("wrong", [torch.zeros(3, 3, 16, 16), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)])
def test_init_images_that_do_not_fit_are_refused(diffusion, embeddings, wrong):
    with pytest.raises(InputError, match="init images"):
        diffusion.generate(embeddings, init_images=wrong)


def test_a_saved_diffusion_model_draws_the_same(diffusion, embeddings, tmp_path):
    diffusion.save(tmp_path / "model", training={"steps": 3})
    back = SmallDiffusion.load(tmp_path / "model", encoder_name="timm:net", preprocessing_hash="abc", steps=4)
    with pytest.raises(InputError, match="embedding_guidance"):
        SmallDiffusion.load(tmp_path / "model", embedding_guidance=0.1)
    difference = back.generate(embeddings).int() - diffusion.generate(embeddings).int()
    assert difference.abs().float().mean() < 2  # weights are stored in half precision
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["encoder"], config["preprocessing_hash"]) == ("timm:net", "abc")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_model_of_another_encoder_or_file_is_refused(diffusion, tmp_path):
    diffusion.save(tmp_path / "model")
    with pytest.raises(InputError, match="open_clip:ViT-L-14/openai"):
        SmallDiffusion.load(tmp_path / "model", encoder_name="open_clip:ViT-L-14/openai")
    with pytest.raises(InputError, match="preprocessing xyz"):
        SmallDiffusion.load(tmp_path / "model", preprocessing_hash="xyz")
    with pytest.raises(InputError, match="small_diffusion model"):
        SmallDiffusion.load(tmp_path / "nothing")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="small_diffusion model"):
        SmallDiffusion.load(tmp_path / "model")


def test_the_condition_survives_scale_and_shift_of_the_embeddings():
    """The code is made of the training set's own mean and components, so units of measure drop out."""
    from neurobridge_tb.generation.conditional_unet import ConditionalUNet

    torch.manual_seed(0)
    embeddings = torch.randn(200, DIM)
    images = torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8)
    settings = {"embedding_dim": DIM, "image_size": 16, "patch": 2, "channels": (32, 32), "code_dim": 6}
    one, two = ConditionalUNet(**settings), ConditionalUNet(**settings)
    one.fit_condition(embeddings, images)
    two.fit_condition(embeddings * 40 + 7, images)
    torch.testing.assert_close(
        one.layout(one.code(embeddings)), two.layout(two.code(embeddings * 40 + 7)), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(one.code(embeddings).var(0).mean(), torch.tensor(1.0), rtol=0.02, atol=0)
    assert one.code(embeddings).mean(0).abs().max() < 1e-5


def test_an_untrained_network_already_paints_the_layout():
    """With a zero output layer the best linear guess is left, whose end point is the read-out itself."""
    from neurobridge_tb.generation.conditional_unet import ConditionalUNet, to_uint8

    torch.manual_seed(0)
    embeddings = torch.randn(200, DIM)
    images = (embeddings[:, :3, None, None].sigmoid() * 255).to(torch.uint8).expand(-1, -1, 16, 16)
    network = ConditionalUNet(embedding_dim=DIM, image_size=16, patch=2, channels=(32, 32), code_dim=DIM)
    network.fit_condition(embeddings, images)
    diffusion = SmallDiffusion(network, encoder_name="e", preprocessing_hash="h", guidance=1.0)
    made = diffusion.generate(embeddings[:10])
    expected = to_uint8(network.layout(network.code(embeddings[:10])))
    means = made[:, 0].float().mean((2, 3)), expected.float().mean((2, 3))
    torch.testing.assert_close(*means, rtol=0, atol=12)


def test_embedding_guidance_brings_the_picture_nearer_to_the_embedding(embeddings):
    def cosine(weight):
        generator = make_guided(weight)
        seen = generator.encoder.encode(generator.generate(embeddings, num_samples=8).flatten(0, 1))
        mean = generator.network.mean
        return torch.cosine_similarity(seen - mean, embeddings.repeat_interleave(8, 0) - mean).mean()

    assert cosine(0.6) > cosine(0.2) + 0.05 > cosine(0.0) + 0.1


@pytest.mark.parametrize("step", [20, 500, 999])
def test_covary_is_the_posterior_covariance_of_a_gaussian(diffusion, step):
    """Of one block of pixels: the inverse of prior precision plus the noisy picture's."""
    network, step = diffusion.network, torch.tensor(step)
    blocks = torch.zeros(12, 3, 16, 16)
    blocks[torch.arange(12), torch.arange(12) // 4, 4 + torch.arange(12) % 4 // 2, 6 + torch.arange(12) % 2] = 1
    prior = network.axes.T.double() @ network.residual.double().square().diag() @ network.axes.double()
    signal = network.signal[step].double()
    posterior = torch.linalg.inv(torch.linalg.inv(prior) + signal**2 / (1 - signal**2) * torch.eye(12))
    made = network.covary(blocks, step)[:, :, 4:6, 6:8].flatten(1)
    torch.testing.assert_close(made.double(), posterior, rtol=1e-3, atol=1e-6)


def test_embedding_guidance_needs_the_encoder_of_the_embeddings():
    with pytest.raises(InputError, match="Found none"):
        make_diffusion(embedding_guidance=0.3)
    with pytest.raises(InputError, match="preprocessing abc"):
        make_diffusion(embedding_guidance=0.3, encoder=make_encoder())


def test_nearest_finds_by_direction_not_by_length():
    nearest = make_nearest()
    picture = nearest.generate(nearest.embeddings[[4, 9]] * 50)
    assert torch.equal(picture[:, 0], nearest.images[[4, 9]])
    with pytest.raises(InputError, match="20 samples"):
        nearest.generate(nearest.embeddings[:1], num_samples=21)
    with pytest.raises(InputError, match="at least one"):
        NearestImage(torch.zeros(0, 4), torch.zeros(0, 3, 8, 8, dtype=torch.uint8))


def test_ridge_recovers_a_linear_code_of_the_picture(tmp_path):
    torch.manual_seed(0)
    blocks = torch.randint(0, 256, (300, 3, 2, 2)).float()
    images = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8)
    features = blocks.flatten(1) @ torch.randn(12, 30) + 0.1 * torch.randn(300, 30)
    ridge = RidgePixels.fit(features[:250], images[:250], resolution=4)
    made = ridge.generate(features[250:])[:, 0].float()
    seen = images[250:].float()
    both = torch.corrcoef(torch.stack([made.flatten(), seen.flatten()]))
    assert both[0, 1] > 0.9
    ridge.save(tmp_path / "ridge.safetensors")
    back = load_generator("ridge_pixels", path=tmp_path / "ridge.safetensors")
    assert torch.equal(back.generate(features[250:])[:, 0].float(), made)


def test_ridge_shrinks_to_the_mean_picture_when_features_are_noise():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    ridge = RidgePixels.fit(torch.randn(60, 200), images, resolution=4)
    made = ridge.generate(torch.randn(10, 200))
    assert made.float().std(0).mean() < 25 < images.float().std(0).mean()


def test_ridge_refuses_what_does_not_fit(tmp_path):
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match="as many pictures"):
        RidgePixels.fit(torch.zeros(4, 2), images)
    with pytest.raises(InputError, match="finite"):
        RidgePixels.fit(torch.full((3, 2), torch.nan), images)
    with pytest.raises(InputError, match="read-out"):
        RidgePixels.load(tmp_path / "nothing.safetensors")


def test_generators_are_found_by_name_and_registered_once(monkeypatch):
    from neurobridge_tb.generation import base

    monkeypatch.setattr(base, "_generators", dict(base._generators))
    with pytest.raises(InputError, match="nearest, ridge_pixels, sd_adapter, small_diffusion, stable_unclip"):
        load_generator("stable_diffusion")
    register_generator("mine", make_nearest)
    assert "mine" in generator_names()
    assert isinstance(load_generator("mine"), NearestImage)
    with pytest.raises(InputError, match="not taken"):
        register_generator("nearest", make_nearest)


def test_generation_imports_nothing_heavy():
    code = (
        "import sys, neurobridge_tb.generation.small_diffusion;"
        "print([m for m in ('torchvision', 'timm', 'diffusers', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
