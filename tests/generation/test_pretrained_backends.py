"""Backends on pretrained models: full sampling calls of the real classes, tiny and random, through the real loading."""

import shutil
import warnings

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pipelines import SIZE, save_stable_diffusion, save_stable_unclip

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.datasets.stimuli import StimulusImages
from neurobridge_tb.engine.pictures.adapter_training import train_adapter
from neurobridge_tb.engine.pictures.step_training import Schedule
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.base import load_generator
from neurobridge_tb.generation.ip_adapter import FILE
from neurobridge_tb.jobs.train_decoder import train_decoder

DIM, N = 12, 8
NAMES = ("stable_unclip", "sd_adapter", "ip_adapter")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folders of the pretrained models, and of adapters that were trained on eight plain pictures."""
    place = tmp_path_factory.mktemp("weights")
    sd = save_stable_diffusion(place / "sd")
    folders = {"sd": sd, "stable_unclip": save_stable_unclip(place / "unclip" / "model", DIM)}
    ids = [f"{k}.png" for k in range(N)]
    (place / "images").mkdir()
    for k, image_id in enumerate(ids):
        Image.fromarray(np.full((SIZE, SIZE, 3), 30 * k, np.uint8)).save(place / "images" / image_id)
    embeddings = torch.randn(N, DIM, generator=torch.Generator().manual_seed(0)) * 5 + 3
    cache = EmbeddingCache(ids, embeddings, encoder="timm:net", preprocessing_hash="abc")
    cache.save(place / "embeddings.h5")
    for backend in ("sd_adapter", "ip_adapter"):
        folders[backend] = place / backend
        train_adapter(
            backend, StimulusImages(place / "images", ids), cache, place / backend,
            Schedule(steps=6, lr=1e-2, log_every=1, ema=0.5), weights=str(sd), batch_size=4,
        )  # fmt: skip
    return folders | {"images": place / "images", "embeddings": place / "embeddings.h5"}


def load(weights, name, **settings):
    settings = {"steps": 2, **settings}
    key = "weights" if name == "stable_unclip" else "adapter"
    return load_generator(name, **{key: str(weights[name])}, **settings)


@pytest.fixture(scope="module", params=NAMES)
def backend(request, weights):
    return request.param, load(weights, request.param)


@pytest.fixture(scope="module")
def embeddings():
    return torch.randn(3, DIM, generator=torch.Generator().manual_seed(1)) * 5 + 3


@pytest.fixture(scope="module")
def init():
    return torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def difference(one, two):
    return (one.int() - two.int()).abs()


def test_pictures_depend_on_seed_sample_and_embedding_alone(backend, embeddings):
    _, generator = backend
    pictures = generator.generate(embeddings, num_samples=2, seed=5)
    assert pictures.shape == (3, 2, 3, SIZE, SIZE) and pictures.dtype == torch.uint8
    assert torch.equal(pictures, generator.generate(embeddings, num_samples=2, seed=5))
    assert not torch.equal(pictures, generator.generate(embeddings, num_samples=2, seed=6))
    assert not torch.equal(pictures[:, 0], pictures[:, 1])
    other = generator.generate(embeddings.flip(0), num_samples=2, seed=5)
    assert not torch.equal(pictures[0], other[0])


def test_no_item_sees_its_batch_mates(backend, embeddings):
    """With batched image embeddings diffusers mixes items (#9813); a changed item must not change another."""
    _, generator = backend
    changed = embeddings.clone()
    changed[1] = -20 * embeddings[1]
    one, two = (generator.generate(e, num_samples=2) for e in (embeddings, changed))
    assert torch.equal(one[[0, 2]], two[[0, 2]])
    assert not torch.equal(one[1], two[1])


def test_batch_size_does_not_change_the_pictures(backend, embeddings, monkeypatch):
    name, generator = backend
    whole = generator.generate(embeddings, num_samples=2)
    monkeypatch.setattr(generator if name == "stable_unclip" else generator.diffusion, "batch_size", 1)
    alone = generator.generate(embeddings, num_samples=2)
    assert difference(whole, alone).max() <= 2  # rounding


def test_without_guidance_it_draws_too(weights, embeddings, backend, monkeypatch):
    name, generator = backend
    guided = generator.generate(embeddings)
    monkeypatch.setattr(generator if name == "stable_unclip" else generator.diffusion, "guidance", 1.0)
    assert not torch.equal(guided, generator.generate(embeddings))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(weights, name, embeddings):
    generator = load(weights, name, dtype="bfloat16")
    pictures = generator.generate(embeddings)
    assert pictures.dtype == torch.uint8 and pictures.float().std() > 0
    assert torch.equal(pictures, generator.generate(embeddings))
    with pytest.raises(InputError, match="dtype"):
        load(weights, name, dtype="int8")


@pytest.mark.parametrize("name", ["sd_adapter", "ip_adapter"])
def test_an_init_image_is_where_img2img_starts(weights, name, embeddings, init):
    short, long = (load(weights, name, steps=5, strength=s) for s in (0.2, 1.0))
    black = torch.zeros_like(init)
    effect = [
        difference(g.generate(embeddings, init_images=init), g.generate(embeddings, init_images=black)).float().mean()
        for g in (short, long)
    ]
    assert effect[0] > 2 * effect[1]
    changed = init.clone()
    changed[1] = 255 - init[1]
    one, two = (short.generate(embeddings, init_images=i) for i in (init, changed))
    assert torch.equal(one[[0, 2]], two[[0, 2]]) and not torch.equal(one[1], two[1])
    with pytest.raises(InputError, match="init images"):
        short.generate(embeddings, init_images=init[:2])


def test_out_of_memory_halves_the_batch_and_says_so(backend, embeddings, monkeypatch):
    name, generator = backend
    expected = generator.generate(embeddings)
    pipeline = generator.pipeline if name == "stable_unclip" else generator.diffusion.pipeline
    real, sizes = pipeline.unet.forward, []

    def small_memory(sample, *args, **kwargs):
        sizes.append(len(sample) // 2)  # guidance doubles the batch
        if len(sample) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return real(sample, *args, **kwargs)

    monkeypatch.setattr(pipeline.unet, "forward", small_memory)
    with pytest.warns(UserWarning, match="batches of 1"):
        pictures = generator.generate(embeddings)
    assert sizes[0] == 3 and set(sizes[1:]) == {1}
    assert difference(pictures, expected).max() <= 2
    monkeypatch.setattr(pipeline.unet, "forward", lambda *a, **k: 1 / 0)
    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
        warnings.simplefilter("error")
        generator.generate(embeddings)


def test_embeddings_of_another_size_are_refused(backend):
    _, generator = backend
    with pytest.raises(InputError, match=rf"\(items, {DIM}\)"):
        generator.generate(torch.zeros(2, DIM + 1))


def test_the_adapters_were_trained_and_loss_curves_are_kept(weights):
    for name in ("sd_adapter", "ip_adapter"):
        assert (weights[name] / "loss.csv").read_text().count("\n") == 7
        assert not weights[name].with_name(f"{name}.training").exists()


def test_an_ip_adapter_loads_into_diffusers_own_pipeline(weights, embeddings):
    """The file is diffusers' format: its pipeline draws from raw embeddings what the backend draws."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    ours = load(weights, "ip_adapter").generate(embeddings[:1])
    pipeline = StableDiffusionPipeline.from_pretrained(weights["sd"], safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.load_ip_adapter(str(weights["ip_adapter"]), subfolder="", weight_name=FILE, image_encoder_folder=None)
    from neurobridge_tb.generation.batches import _generator

    theirs = pipeline(
        prompt="", ip_adapter_image_embeds=[torch.stack([torch.zeros(1, DIM), embeddings[:1]])],
        num_inference_steps=2, guidance_scale=5.0, generator=_generator((0, 0, 0)), output_type="np",
        height=SIZE, width=SIZE,
    ).images  # fmt: skip
    expected = torch.from_numpy((theirs * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)
    assert difference(ours[:, 0], expected).max() <= 1


def test_an_untrained_token_adapter_says_nothing(weights, embeddings, tmp_path):
    cache = EmbeddingCache.load(weights["embeddings"])
    stimuli = StimulusImages(weights["images"], cache.ids)
    train_adapter("sd_adapter", stimuli, cache, tmp_path / "a", Schedule(steps=1, lr=0.0), weights=str(weights["sd"]))
    made = load_generator("sd_adapter", adapter=tmp_path / "a", steps=2).generate(embeddings[:1].repeat(2, 1))
    other = load_generator("sd_adapter", adapter=tmp_path / "a", steps=2).generate(embeddings[1:])
    assert torch.equal(made, other)


def test_adapters_of_another_encoder_or_model_are_refused(weights, tmp_path):
    for name in ("sd_adapter", "ip_adapter"):
        with pytest.raises(InputError, match="timm:net"):
            load(weights, name, encoder_name="another")
        with pytest.raises(InputError, match=r"Expected a decoder of backend sd_adapter|Expected an IP-Adapter"):
            load_generator(name, adapter=str(tmp_path / "nothing"))
    from diffusers import UNet2DConditionModel

    wide = save_stable_diffusion(tmp_path / "sd")
    config = UNet2DConditionModel.load_config(wide / "unet")
    UNet2DConditionModel.from_config(config, cross_attention_dim=48).save_pretrained(wide / "unet")
    for name in ("sd_adapter", "ip_adapter"):
        with pytest.raises(InputError, match="trained for"):
            load_generator(name, adapter=str(weights[name]), weights=str(wide))


def test_missing_weights_are_one_clear_error(weights, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="hub id.*local folder"):
        load_generator("stable_unclip")
    with pytest.raises(InputError, match="no folder here"):
        load_generator("stable_unclip", weights=str(tmp_path / "nowhere" / "else"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="model_index.json"):
        load_generator("stable_unclip", weights=str(tmp_path / "empty"))
    with pytest.raises(InputError, match="StableUnCLIPImg2ImgPipeline"):
        load_generator("stable_unclip", weights=str(weights["sd"]))
    with pytest.raises(InputError, match="options of the generator stable_unclip: weights"):
        load_generator("stable_unclip", wieghts="x")


def test_a_hub_that_cannot_be_reached_is_one_clear_error_and_its_cache_will_do(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(InputError, match="hub, or in its cache"):
        load_generator("stable_unclip", weights="owner/model")
    cached = tmp_path / "models--owner--model"
    shutil.copytree(weights["stable_unclip"], cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert load_generator("stable_unclip", weights="owner/model").dim == DIM


@pytest.mark.parametrize(
    "options",
    [{"backend": "nearest"}, {"weights": "a/b"}, {"backend": "ip_adapter", "start": "x"}, {"precision": "16-mixed"}],
)
def test_options_that_a_decoder_does_not_have_are_refused(options, tmp_path):
    with pytest.raises(InputError, match="Correct these options"):
        train_decoder(images="images", embeddings="embeddings.h5", run_dir=tmp_path / "out", **options)


def test_the_training_job_trains_an_adapter_on_a_folder(weights, tmp_path):
    train_decoder(
        images=weights["images"], embeddings=weights["embeddings"], run_dir=tmp_path / "out", backend="ip_adapter",
        steps=2, weights=str(weights["sd"]), batch_size=2, precision="bf16-mixed",
    )  # fmt: skip
    pictures = load_generator("ip_adapter", adapter=tmp_path / "out", steps=1).generate(torch.zeros(1, DIM))
    assert pictures.shape == (1, 1, 3, SIZE, SIZE)


def test_an_autoencoder_that_overflows_is_an_error_not_a_black_picture(weights, embeddings):
    generator = load(weights, "sd_adapter")
    with torch.no_grad():
        generator.diffusion.pipeline.vae.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(InputError, match="float16 overflows"):
        generator.generate(embeddings[:1])
