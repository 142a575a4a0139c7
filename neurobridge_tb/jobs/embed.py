"""Embeddings of a folder of images, computed once."""

from collections.abc import Callable
from pathlib import Path

import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.encoders import load_image_encoder
from neurobridge_tb.datasets.stimuli import StimulusImages, find_images

_CHUNK = 512  # images in memory at a time


def embed_folder(
    images: str | Path,
    out: str | Path,
    encoder_name: str,
    image_size: int | None = None,
    *,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> int:
    """Embed every image below a folder; returns how many.

    Args:
        images: Folder; an image's id is its path below it.
        out: HDF5 file to write, aside and renamed.
        encoder_name: As :func:`neurobridge_tb.alignment.encoders.load_image_encoder` takes it.
        image_size: Side in pixels to which images are resized; default: the encoder's own.
        progress: Called as ``progress(stage, done, total)``.
    """
    ids = find_images(images)
    stimuli = StimulusImages(images, ids)
    encoder = load_image_encoder(encoder_name, image_size)
    embeddings = []
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        embeddings.append(encoder.encode(stimuli.load(chunk, size=encoder.image_size)))
        progress("Embedding images", start + len(chunk), len(ids))
    EmbeddingCache(
        ids, torch.cat(embeddings), encoder=encoder.name, preprocessing_hash=encoder.preprocessing_hash
    ).save(out)
    return len(ids)
