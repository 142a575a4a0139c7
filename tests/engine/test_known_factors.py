"""Factors that are kept beside a model: what they are of, their file, and what alignment does with them."""

import numpy as np
import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.alignment import EmbeddingCache
from neurobridge_tb.data.responses import collect_responses, embed_responses
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.known_factors import KnownFactors
from neurobridge_tb.engine.linear_start import fit_linear_path
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.factor_scores import FactorScores
from neurobridge_tb.models import ImageAligner

WINDOW, UNITS, DIM = 0.2, 40, 3
SHOWN = {"train": 900, "valid": 100, "test": 100}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Windows of two bins, each a latent step of its own; what the images' embeddings are lies in small factors."""
    from neurobridge_tb._upstream import Interval

    rng, n = np.random.default_rng(0), sum(SHOWN.values())
    factors = rng.normal(size=(n, 5)) * [4, 2, 1, 1, 1]
    bins = np.repeat(factors @ rng.normal(size=(5, UNITS)), 2, axis=0)
    mua = bins + rng.normal(size=bins.shape) * rng.uniform(1, 6, UNITS)
    starts, edges = WINDOW * np.arange(n), np.cumsum([0, *SHOWN.values()])
    data = build_recording(
        brainset_id="test", session_id="a", subject_id="s", units={"id": [f"u{i}" for i in range(UNITS)]},
        mua=(mua.astype(np.float32), WINDOW / 2), simulated=True,
        splits={s: (starts[a:b], starts[a:b] + WINDOW) for s, a, b in zip(SHOWN, edges[:-1], edges[1:], strict=True)},
    )  # fmt: skip
    ids = np.array([f"{k}.png" for k in range(n)])
    data.presentations = Interval(
        start=starts, end=starts + WINDOW, image_id=ids, repeat=np.zeros(n, int), timekeys=["start", "end"]
    )
    root = tmp_path_factory.mktemp("world")
    save_recording(data, root / "a.h5")
    dataset = BinnedRecordings(root=root)
    torch.manual_seed(0)
    model = NeuroBridgeModel(modality="mua", sequence_length=WINDOW, latent_step=WINDOW / 2, dim=16, depth=1)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    known = KnownFactors.fit(model, dataset, dataset.get_sampling_intervals("train"))
    return dataset, model, known, EmbeddingCache(ids.tolist(), factors[:, 2:], encoder="e"), mua


def test_they_are_the_factor_scores_of_all_steps_of_the_training_windows(world):
    _, model, known, _, mua = world
    train = mua[: 2 * SHOWN["train"]]
    expected = FactorScores.fit(train)(train)
    z = (train - train.mean(0)) / train.std(0)
    scores = z @ known.of([f"u{i}" for i in range(UNITS)])
    assert scores.shape == expected.shape and scores.shape[1] >= 5
    correlation = np.corrcoef(scores.T, expected.T)[: scores.shape[1], scores.shape[1] :].diagonal()
    np.testing.assert_allclose(np.abs(correlation), 1, atol=1e-4)
    some = ["u7", "u2"]
    np.testing.assert_array_equal(known.of(some), known.of([f"u{i}" for i in range(UNITS)])[[7, 2]])
    assert known.of(["u1", "another"]) is None


def test_a_recording_without_training_windows_is_left_out(world):
    dataset, model, *_ = world
    none = {"a": dataset.get_sampling_intervals("train")["a"].slice(0, 0)}
    assert KnownFactors.fit(model, dataset, none).of(["u1"]) is None


def test_they_come_back_from_a_model_folder(world, tmp_path):
    _, model, known, *_ = world
    folder = model.save_pretrained(tmp_path / "model")
    assert KnownFactors.load(folder).of(["u1"]) is None  # a model without any
    known.save(folder)
    np.testing.assert_allclose(KnownFactors.load(folder).of(["u3", "u1"]), known.of(["u3", "u1"]), rtol=1e-6)
    NeuroBridgeModel.load_pretrained(folder)  # which is what it was
    (folder / "factors.h5").write_bytes(b"cut off")
    with pytest.raises(InputError, match="Delete it"):
        KnownFactors.load(folder)


def test_with_few_pairs_alignment_takes_them_and_predicts_better(world):
    dataset, model, known, cache, _ = world
    train, valid, test = (collect_responses(dataset, model, "a", split) for split in SHOWN)
    few = train.rows(np.arange(len(train.values)) < 25)
    pairs = [[(r, cache.lookup(list(r.image_ids)))] for r in (few, valid)]
    truth, error, chosen = cache.lookup(list(test.image_ids)), {}, {}
    for name, given in (("without", None), ("with", known)):
        aligner = ImageAligner(
            encoder=model.config, image_encoder="e", preprocessing_hash="", dim_embedding=DIM, dim_hidden=8,
            linear_path=True,
        )  # fmt: skip
        aligner.set_encoder(model)
        aligner.fit_embedding_statistics(pairs[0][0][1])
        found, _ = fit_linear_path(aligner, *pairs, known=given)
        chosen[name] = found["from"]
        error[name] = float((embed_responses(aligner, test)[1] - truth).square().mean())
    assert chosen["with"] == "factors of pretraining" != chosen["without"]
    assert error["with"] < 0.9 * error["without"]
