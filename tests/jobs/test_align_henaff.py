"""Real responses: single trials of one V1 population find the images that other populations saw."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from neurobridge_tb.alignment import EmbeddingCache
from neurobridge_tb.datasets import BinnedRecordings

pytestmark = pytest.mark.recordings


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parents[2] / "examples" / "align_henaff_v1.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def populations(example, recordings_dir):
    return example.read(recordings_dir / "recordings" / "henaff_v1")


def test_copies_of_an_image_are_one(populations):
    ids = populations["ids"]
    assert len(ids) == len(set(ids)) == 440
    means = np.nanmean(populations["ay3_u002"], axis=0)
    assert len(np.unique(means, axis=1).T) == 440  # no two images have the same numbers


def test_units_of_a_population_were_recorded_together(example, populations):
    for name, counts in populations.items():
        if name != "ids":
            together, shuffled = (example.noise_correlation(counts, seed) for seed in (None, 0))
            assert together > 0.1 > 0.01 > abs(shuffled), name


@pytest.mark.parametrize("by_movie", [False, True])
def test_images_are_dealt_out_once(example, populations, by_movie):
    ids = populations["ids"]
    splits = example.deal(ids, by_movie, seed=0)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(440))
    if by_movie:
        movies = {split: {id_.partition("/")[0] for id_ in ids[part]} for split, part in splits.items()}
        assert not movies["train"] & movies["test"] and not movies["valid"] & movies["test"]


def test_held_out_images_are_found_from_single_trials(example, recordings_dir, tmp_path):
    result = example.run(recordings_dir / "recordings" / "henaff_v1", tmp_path, repeats=4, epochs=1)
    rows = {(row["model"], row["trials"]): row for row in result["rows"] if row["direction"] == "neural to image"}
    assert result["n_candidates"] == 100 and not result["simulated"]
    for model in ("NeuroBridge, linear start", "NeuroBridge", "ridge"):
        assert rows[model, "single trial"]["p"] < 0.01, model
    assert rows["ridge, shuffled labels", "single trial"]["p"] > 0.01
    cache = EmbeddingCache.load(tmp_path / "embeddings.h5")
    recording = BinnedRecordings(tmp_path / "processed").get_recording("ay3_u002")
    assert set(recording.presentations.image_id) == set(cache.ids)
    assert np.isnan(recording.mua.value).any()  # units that were not held
