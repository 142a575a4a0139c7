"""Embedding a folder: a run that was cut goes on, but not from parts of images that have changed since."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.encoders import ImageEncoder
from neurobridge_tb.jobs import embed as job


class Cut(Exception):
    pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight images, embedded four at a time."""
    monkeypatch.setattr(job, "_CHUNK", 4)
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(8):
        draw(tmp_path / "images" / f"{k}.png", rng)
    return tmp_path


def draw(path, rng):
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    os.utime(path, (1, 1))  # long ago


def embedded(folder, name="out.h5"):
    return EmbeddingCache.load(job.embed(images=folder / "images", out=folder / name, image_size=32, device="cpu"))


def cut_at(chunk, monkeypatch):
    """Count the batches of images that are embedded, and stop before one of them."""
    computed, targets = [], ImageEncoder.targets

    def noting(self, images, *rest, **named):
        if len(computed) == chunk:
            raise Cut
        computed.append(len(images))
        return targets(self, images, *rest, **named)

    monkeypatch.setattr(ImageEncoder, "targets", noting)
    return computed


@pytest.mark.parametrize("changed", [False, True], ids=["same images", "an image changed"])
def test_a_cut_run_goes_on_with_what_is_still_true(folder, monkeypatch, changed):
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_at(1, patch)
        embedded(folder)
    assert sorted(path.name for path in (folder / "out.h5.parts").glob("*.h5")) == ["00000.h5"]
    if changed:
        draw(folder / "images" / "2.png", np.random.default_rng(1))
        os.utime(folder / "images" / "2.png")
    with monkeypatch.context() as patch:
        computed = cut_at(None, patch)
        found = embedded(folder)
    assert computed == ([4, 4] if changed else [4]) and not (folder / "out.h5.parts").exists()
    expected = embedded(folder, "whole.h5")
    assert found.ids == expected.ids and torch.equal(found.embeddings, expected.embeddings)
