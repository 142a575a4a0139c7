"""Retrieval over several layers: every decoder gets the same targets."""

import numpy as np
import pytest
import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.data.responses import Responses
from neurobridge_tb.scoring.retrieval_tables import retrieval_tables

N, UNITS = 60, 12


@pytest.fixture(scope="module")
def setting():
    """Units that hold one layer's values, and nothing of another's."""
    rng = np.random.default_rng(0)
    ids = [f"c{i % 6}/{i:03d}.jpg" for i in range(N + 20)]
    layers = {"signal": rng.normal(size=(len(ids), 4)) + 3, "noise": rng.normal(size=(len(ids), 5))}
    cache = EmbeddingCache(ids, layers, encoder="net", preprocessing_hash="8px-x")
    weights = rng.normal(size=(4, UNITS))
    units = torch.arange(1, UNITS + 1)[None]
    inputs = {"input_unit_index": units, "input_timestamps": torch.zeros(1, 1), "input_session_index": torch.ones(1)}

    def responses(first, last, repeats=1):
        shown = np.repeat(np.arange(first, last)[None], repeats, 0).ravel()
        values = (layers["signal"][shown] - 3) @ weights + 0.3 * rng.normal(size=(len(shown), UNITS))
        return Responses(
            values=values[:, None].astype(np.float32),
            image_ids=np.array(ids)[shown],
            repeats=np.repeat(np.arange(repeats), last - first),
            areas=np.array(["V1"] * UNITS),
            steps=np.zeros(1, dtype=int),
            model_inputs=inputs,
        )

    splits = {"train": responses(0, N - 12), "valid": responses(N - 12, N), "test": responses(N, N + 20, repeats=4)}
    return splits, cache


def test_baselines_get_the_layers_that_are_aligned_to_with_weights_of_their_own(setting):
    splits, cache = setting
    tables = retrieval_tables(splits, {}, cache, resamples=20)
    assert list(tables) == ["all layers", "signal", "noise"]

    def top1(layer, model, trials="repeat average"):
        (row,) = [
            r for r in tables[layer]
            if r["model"] == model and r["trials"] == trials and r["direction"] == "neural to image"
        ]  # fmt: skip
        return row["top1"]["value"]

    for model in ("ridge", "MLP"):
        assert top1("signal", model) > 0.8 and top1("noise", model) < 0.3
    assert top1("all layers", "ridge") > 0.9 and top1("all layers", "ridge, shuffled labels") < 0.3
    assert {r["model"] for r in tables["noise"]} == {
        "ridge", "MLP", "noise ceiling (split half of ridge predictions)"
    }  # fmt: skip
    one = EmbeddingCache(cache.ids, cache.embeddings[:, cache.columns("signal")], encoder="net")
    assert list(retrieval_tables(splits, {}, one, resamples=20)) == ["all layers"]
