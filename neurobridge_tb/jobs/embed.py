"""Embeddings of a folder of images, computed once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.encoders import load_image_encoder
from neurobridge_tb.alignment.layers import FINAL
from neurobridge_tb.datasets.stimuli import StimulusImages, find_images

_CHUNK = 512  # images in memory at a time


def embed_folder(
    images: str | Path,
    out: str | Path,
    encoder_name: str,
    image_size: int | None = None,
    layers: Sequence[str] = (FINAL,),
    *,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> int:
    """Embed every image below a folder; returns how many.

    Args:
        images: Folder; an image's id is its path below it.
        out: HDF5 file to write, aside and renamed.
        encoder_name: As :func:`neurobridge_tb.alignment.encoders.load_image_encoder` takes it.
        image_size: Side in pixels to which images are resized; default: the encoder's own.
        layers: Layers to keep, e.g. ``["0.5@3x3", "final"]``, see :mod:`neurobridge_tb.alignment.layers`.
        progress: Called as ``progress(stage, done, total)``.
    """
    encoder = load_image_encoder(encoder_name, image_size)
    chosen = encoder.layers(layers)
    ids = find_images(images)
    stimuli = StimulusImages(images, ids)
    chunks = []
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        chunks.append(encoder.targets(stimuli.load(chunk, size=encoder.image_size), chosen))
        progress("Embedding images", start + len(chunk), len(ids))
    EmbeddingCache(
        ids,
        {str(layer): torch.cat([chunk[str(layer)] for chunk in chunks]) for layer in chosen},
        encoder=encoder.name,
        preprocessing_hash=encoder.preprocessing_hash,
    ).save(out)
    return len(ids)
