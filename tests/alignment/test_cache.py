"""Embedding cache: round trip, and what it refuses."""

import h5py
import numpy as np
import pytest
import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.errors import InputError

IDS = ["dog/dog_01b.jpg", "cat/cat_02s.jpg", "käfer/käfer_01b.jpg"]


@pytest.fixture
def cache():
    values = np.random.default_rng(0).normal(size=(3, 4))
    return EmbeddingCache(IDS, values, encoder="timm:net", preprocessing_hash="abc")


def test_round_trip(cache, tmp_path):
    cache.save(tmp_path / "c.h5")
    back = EmbeddingCache.load(tmp_path / "c.h5", "timm:net", "abc")
    assert (back.ids, back.encoder, back.preprocessing_hash, back.dim) == (IDS, "timm:net", "abc", 4)
    torch.testing.assert_close(back.embeddings, cache.embeddings, rtol=0, atol=0)
    with h5py.File(tmp_path / "c.h5") as file:
        assert file["layers/final"].dtype == np.float32 and file.attrs["version"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c.h5"]


def test_lookup_follows_the_order_asked_for_and_repeats(cache):
    rows = cache.lookup([IDS[2], IDS[0], IDS[2]])
    torch.testing.assert_close(rows, cache.embeddings[[2, 0, 2]], rtol=0, atol=0)


def test_lookup_names_what_is_missing(cache):
    with pytest.raises(InputError, match="fish/fish_01b.jpg"):
        cache.lookup([IDS[0], "fish/fish_01b.jpg"])


def test_another_encoders_cache_is_refused(cache, tmp_path):
    cache.save(tmp_path / "c.h5")
    with pytest.raises(InputError, match="open_clip:ViT-L-14/openai"):
        EmbeddingCache.load(tmp_path / "c.h5", "open_clip:ViT-L-14/openai")
    with pytest.raises(InputError, match="preprocessing xyz"):
        EmbeddingCache.load(tmp_path / "c.h5", "timm:net", "xyz")


@pytest.mark.parametrize("content", [None, b"", b"not an HDF5 file"])
def test_missing_or_broken_files_are_one_clear_error(content, tmp_path):
    path = tmp_path / "c.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="embedding cache"):
        EmbeddingCache.load(path)


def test_an_hdf5_file_of_another_kind_is_refused(tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(InputError, match="embedding cache"):
        EmbeddingCache.load(tmp_path / "c.h5")


def test_bad_embeddings_never_become_a_cache():
    with pytest.raises(InputError, match="one embedding for each"):
        EmbeddingCache(IDS, np.zeros((2, 4)), encoder="e")
    with pytest.raises(InputError, match="twice"):
        EmbeddingCache(["a", "a"], np.zeros((2, 4)), encoder="e")
    with pytest.raises(InputError, match="NaN"):
        EmbeddingCache(["a"], np.full((1, 4), np.nan), encoder="e")


def test_a_failed_write_leaves_the_old_cache(cache, tmp_path, monkeypatch):
    cache.save(tmp_path / "c.h5")
    before = (tmp_path / "c.h5").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(OSError, match="disk full"):
        cache.save(tmp_path / "c.h5")
    assert (tmp_path / "c.h5").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.h5"]


def test_layers_lie_side_by_side_and_any_of_them_can_be_read(tmp_path):
    parts = {"blocks.3@2x2": np.arange(12.0).reshape(3, 4), "final": np.arange(6.0).reshape(3, 2) + 100}
    EmbeddingCache(IDS, parts, encoder="timm:net", preprocessing_hash="64px-abc").save(tmp_path / "c.h5")
    both = EmbeddingCache.load(tmp_path / "c.h5")
    assert both.layers == {"blocks.3@2x2": 4, "final": 2} and both.dim == 6
    assert both.embeddings[:, both.columns("final")].tolist() == parts["final"].tolist()
    turned = EmbeddingCache.load(tmp_path / "c.h5", layers=["final", "blocks.3@2x2"])
    assert turned.lookup(IDS[1:2])[0].tolist() == [102, 103, 4, 5, 6, 7]
    assert EmbeddingCache.load(tmp_path / "c.h5", layers=["final"]).layers == {"final": 2}


def test_a_layer_that_is_not_there_names_the_nearest(tmp_path):
    parts = {"blocks.3@2x2": np.zeros((3, 4)), "final": np.zeros((3, 2))}
    EmbeddingCache(IDS, parts, encoder="e").save(tmp_path / "c.h5")
    with pytest.raises(InputError, match=r"Nearest: blocks\.3@2x2"):
        EmbeddingCache.load(tmp_path / "c.h5", layers=["blocks.3"])


def test_another_image_size_is_refused_in_pixels(tmp_path):
    EmbeddingCache(IDS, np.zeros((3, 2)), encoder="timm:net", preprocessing_hash="64px-abc").save(tmp_path / "c.h5")
    with pytest.raises(InputError, match=r"(?s)timm:net at 128 px.*timm:net at 64 px"):
        EmbeddingCache.load(tmp_path / "c.h5", "timm:net", "128px-def")


def test_a_cache_of_version_1_holds_the_final_layer(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_dataset("ids", data=IDS, dtype=h5py.string_dtype())
        file["embeddings"] = np.arange(6, dtype=np.float32).reshape(3, 2)
        file.attrs.update({"encoder": "timm:net", "preprocessing_hash": "abc", "version": 1})
    old = EmbeddingCache.load(tmp_path / "old.h5", "timm:net", "128px-abc")
    assert old.layers == {"final": 2} and old.lookup(IDS[2:]).tolist() == [[4, 5]]


def test_a_layer_that_holds_no_numbers_is_refused(cache, tmp_path):
    path = tmp_path / "damaged.h5"
    cache.save(path)
    with h5py.File(path, "r+") as file:
        (name,) = file["layers"]
        del file[f"layers/{name}"]
        file[f"layers/{name}"] = np.array([[b"a"]] * len(cache.ids))
    with pytest.raises(InputError, match="no numbers in layers final"):
        EmbeddingCache.load(path)
