"""Embeddings of a folder of images, computed once."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neurobridge_tb.alignment.cache import EmbeddingCache, check_cache_place
from neurobridge_tb.alignment.encoders import ImageEncoder, load_image_encoder
from neurobridge_tb.configs.embed import EmbedConfig
from neurobridge_tb.datasets.stimuli import StimulusImages, find_images
from neurobridge_tb.devices import allow_tf32, computing_dtype, find_device
from neurobridge_tb.engine.config import settle
from neurobridge_tb.engine.run_lock import lock_run
from neurobridge_tb.errors import InputError
from neurobridge_tb.progress import tracked

_CHUNK = 512  # images in memory at a time, and in a file that a later start goes on from


def embed(config: EmbedConfig | None = None, /, **settings: Any) -> Path:
    """Embed every image below a folder; returns the file.

    What is done lies in ``<out>.parts`` until all is: a run that was cut goes on from there.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`EmbedConfig`.
        **settings: Settings by name, e.g. ``images="images", out="embeddings.h5", image_size=128``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(EmbedConfig, config, settings)
    check_cache_place(config.out)
    parts = Path(f"{config.out}.parts")
    lock_run(parts)
    allow_tf32(config.precision)
    encoder = load_image_encoder(
        config.encoder, config.image_size, find_device(config.device), computing_dtype(config.precision)
    )
    encoder.batch_size = config.batch_size
    ids = find_images(config.images)
    chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
    paths = [parts / f"{k:05d}.h5" for k in range(len(chunks))]
    names = [str(layer) for layer in encoder.layers(config.layers)]
    stimuli = StimulusImages(config.images, ids)
    missing = [k for k, path in enumerate(paths) if not _is_done(path, chunks[k], names, encoder, stimuli)]
    images = _Chunks(stimuli, [chunks[k] for k in missing], encoder.image_size)
    loader = DataLoader(images, batch_size=None, num_workers=config.num_workers)
    for k, pictures in zip(missing, tracked(loader, "Embedding images"), strict=True):
        _cache(chunks[k], encoder.targets(pictures, encoder.layers(config.layers)), encoder).save(paths[k])
    done = [EmbeddingCache.load(path) for path in paths]
    embeddings = {name: torch.cat([part.embeddings[:, part.columns(name)] for part in done]) for name in names}
    _cache(ids, embeddings, encoder).save(config.out)
    shutil.rmtree(parts, ignore_errors=True)
    return Path(config.out)


class _Chunks(Dataset):
    """Pictures (n, 3, H, W) of some ids at a time, read in worker processes where there are any."""

    def __init__(self, images: StimulusImages, chunks: list[list[str]], size: int):
        self.images, self.chunks, self.size = images, chunks, size

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, k: int) -> Tensor:
        return self.images.load(self.chunks[k], size=self.size)


def _cache(ids: list[str], embeddings: dict[str, Tensor], encoder: ImageEncoder) -> EmbeddingCache:
    return EmbeddingCache(ids, embeddings, encoder=encoder.name, preprocessing_hash=encoder.preprocessing_hash)


def _is_done(path: Path, ids: list[str], layers: list[str], encoder: ImageEncoder, images: StimulusImages) -> bool:
    """Whether a part holds these images, none of which has changed since."""
    if not path.exists() or max(images.path(id_).stat().st_mtime for id_ in ids) > path.stat().st_mtime:
        return False
    try:
        part = EmbeddingCache.load(path, encoder.name, encoder.preprocessing_hash)
    except InputError:  # of another encoder, or cut off
        return False
    return part.ids == ids and list(part.layers) == layers
