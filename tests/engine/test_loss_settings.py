"""The masked loss: units that count by what can be predicted of them, and a light term about the image shown."""

import numpy as np
import pandas as pd
import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import Interval, collate
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.data.image_targets import ImageTargets
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.starts.factor_start import start_from_factor_analysis
from neurobridge_tb.engine.starts.unit_weights import unit_weights
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.pretrain import pretrain

WINDOW, BINS, DIM, UNITS = 0.2, 2, 4, 10
SHOWN = {"train": 60, "valid": 20, "test": 10}
IDS = [f"{i % 45}.jpg" for i in range(90)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight units that follow what is shown, more and more, and two that do not."""
    folder, rng = tmp_path_factory.mktemp("loss"), np.random.default_rng(0)
    ids = list(dict.fromkeys(IDS))
    (folder / "images").mkdir()
    embeddings = EmbeddingCache(ids, rng.normal(size=(len(ids), DIM)) + 3.0, encoder="e")
    embeddings.save(folder / "images/embeddings.h5")
    shared = (embeddings.lookup(IDS).numpy() - 3.0) @ rng.normal(size=(DIM, UNITS)) * [*np.linspace(0.2, 2, 8), 0, 0]
    values = np.repeat(shared, BINS, axis=0) + rng.normal(size=(90 * BINS, UNITS))
    starts = WINDOW * np.arange(90)
    edges = np.cumsum([0, *SHOWN.values()])
    data = build_recording(
        brainset_id="test",
        session_id="shown",
        subject_id="s",
        units={
            "id": [f"u{i}" for i in range(UNITS)],
            "reliability": np.array([0.5] * 8 + [np.nan, -0.2]),
        },
        mua=(values.astype(np.float32), WINDOW / BINS),
        splits={s: (starts[a:b], starts[a:b] + WINDOW) for s, a, b in zip(SHOWN, edges[:-1], edges[1:], strict=True)},
        simulated=True,
    )
    data.presentations = Interval(
        start=starts, end=starts + WINDOW / 2, image_id=np.array(IDS), repeat=np.arange(90) // 45,
        timekeys=["start", "end"],
    )  # fmt: skip
    save_recording(data, folder / "shown.h5")
    return folder


@pytest.fixture(scope="module")
def model(root):
    dataset = BinnedRecordings(root)
    model = NeuroBridgeModel(
        modality="mua", sequence_length=WINDOW, latent_step=WINDOW, dim=16, depth=1, dim_head=8, num_factors=8
    )
    model.init_vocabs(dataset)
    train = dataset.get_sampling_intervals("train")
    model.fit_unit_statistics(dataset, train)
    start_from_factor_analysis(model, dataset, train)
    return model


def run_config(root, run_dir, *overrides):
    return compose_config(
        "pretrain",
        [
            "model=tiny", "dataset=binned", f"dataset.root={root}", f"run_dir={run_dir}", "windows=trial",
            "model.modality=mua", f"model.sequence_length={WINDOW}", f"model.latent_step={WINDOW}",
            "loader.batch_size=10", "trainer.max_epochs=2", "trainer.enable_progress_bar=false",
            "device=cpu", *overrides,
        ],
    )  # fmt: skip


def test_units_count_by_their_weight(root, model):
    dataset = BinnedRecordings(root)
    window = dataset.get_recording("shown").slice(0.0, WINDOW)
    batch = collate([model.tokenize_with_targets(window)])
    units, weights = batch["model_inputs"]["output_unit_index"][0], torch.rand(len(model.unit_emb.weight)) + 0.1
    output = torch.randn(1, BINS, UNITS)
    squared = (output - model.standardize(batch["target_values"], units[None]))[0].square()
    (loss, count) = model.masked_losses(output, batch, weights)["mua"]
    torch.testing.assert_close(loss, (squared * weights[units]).sum() / (BINS * weights[units].sum()))
    assert count == BINS * UNITS
    torch.testing.assert_close(model.masked_losses(output, batch, 0 * weights + 3)["mua"][0], squared.mean())


def test_weights_are_what_the_factors_explain_or_the_given_reliability(root, model):
    dataset = BinnedRecordings(root)
    index = model.unit_emb.tokenizer([f"u{i}" for i in range(UNITS)])
    shared = unit_weights("communality", model, dataset)[index]
    assert shared[:8].argmax() > 4 and shared[6:8].min() > 0.6 and shared[8:].max() < 0.3 and shared.min() >= 0.05
    torch.testing.assert_close(
        unit_weights("reliability", model, dataset)[index], torch.tensor([0.5] * 8 + [0.05, 0.05])
    )
    assert unit_weights(None, model, dataset) is None
    with pytest.raises(InputError, match="communality"):
        unit_weights("variance", model, dataset)


def test_windows_know_the_image_that_they_show(root):
    embeddings = EmbeddingCache.load(root / "images/embeddings.h5")
    targets = ImageTargets(BinnedRecordings(root), embeddings)
    found, known = targets(["shown", "shown", "other"], [3 * WINDOW, 70 * WINDOW, 0.0])  # the second one validates
    assert known.tolist() == [True, False, False] and (found[1:] == 0).all()
    centred = embeddings.lookup(IDS[3:4]) - embeddings.lookup(IDS[:60]).mean(0)
    torch.testing.assert_close(found[:1], centred)


def test_a_run_with_both_learns_the_image_and_resumes(root, tmp_path):
    both = ["loss.unit_weights=communality", "loss.image_weight=1.0", f"loss.embeddings={root}/images/embeddings.h5"]
    run = pretrain(run_config(root, tmp_path / "run", *both, "trainer.max_epochs=6", "optimizer.lr=1e-2"))
    image = pd.read_csv(run / "metrics.csv")["train/image"].dropna().to_numpy()
    assert image[-1] < 0.8 * image[0]
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert 0.05 <= state["unit_weights"].min() < 0.5 < state["unit_weights"].max() < 1
    assert pretrain(run_config(root, tmp_path / "run", *both, "trainer.max_epochs=7", "optimizer.lr=1e-2")) == run
    again = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(again["unit_weights"], state["unit_weights"])  # those of the start
    NeuroBridgeModel.load_pretrained(run / "model")


def test_a_term_that_cannot_be_is_refused(root, tmp_path):
    with pytest.raises(InputError, match="loss.embeddings"):
        pretrain(run_config(root, tmp_path / "a", "loss.image_weight=0.01"))
    with pytest.raises(InputError, match="num_factors"):
        pretrain(run_config(root, tmp_path / "b", "loss.unit_weights=communality", "model.num_factors=0"))
