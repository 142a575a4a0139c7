"""The main job on a tiny virtual monkey: pretrain, embed, align, evaluate, reconstruct, report."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from neurobridge_tb import ImageAligner
from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.data.responses import collect_responses, embed_responses
from neurobridge_tb.datasets import Tvsd, build_recording, save_recording
from neurobridge_tb.datasets.image_binding import find_images
from neurobridge_tb.datasets.stimuli import StimulusImages
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.flow import FlowDecoder, FlowModel
from neurobridge_tb.generation.target_codes import TargetCodes
from neurobridge_tb.jobs.align import align
from neurobridge_tb.jobs.evaluate import evaluate
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.jobs.reconstruct import reconstruct
from neurobridge_tb.report.page import build_report
from neurobridge_tb.simulation import write_procedural_images

N_TRAIN, N_VALID, N_TEST, N_REPEATS, N_UNITS, DIM = 80, 16, 12, 3, 24, 6


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A recording whose units respond linearly to a random embedding of drawn images, with noise."""
    ws = tmp_path_factory.mktemp("workspace")
    train, test = write_procedural_images(
        ws / "images", n_concepts=12, images_per_concept=8, n_test=N_TEST, size=32, seed=0
    )
    ids = [*train, *test]
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(len(ids), DIM)).astype(np.float32) + 3
    cache = EmbeddingCache(ids, embeddings, encoder="random", preprocessing_hash="none")
    cache.save(ws / "embeddings.h5")
    shown = [*train, *test * N_REPEATS]
    drive = (cache.lookup(shown).numpy() - 3) @ rng.normal(size=(DIM, N_UNITS)) * 0.4
    values = (drive + rng.normal(size=drive.shape)).astype(np.float32)
    values[3, 5] = np.nan
    starts = np.arange(len(shown)) * 0.4
    valid = N_TRAIN

    def split(first, last):
        return starts[first:last], starts[first:last] + 0.4

    data = build_recording(
        brainset_id="tvsd",
        session_id="tiny_norm",
        subject_id="virtual",
        units={"id": [f"u{i}" for i in range(N_UNITS)], "area": ["V1", "IT"] * (N_UNITS // 2)},
        mua=(values, 0.4),
        splits={
            "train": split(0, valid),
            "valid": split(valid, valid + N_VALID),
            "test": split(valid + N_VALID, len(shown)),
        },
        simulated=True,
    )
    from neurobridge_tb._upstream import Interval

    data.presentations = Interval(
        start=starts,
        end=starts + 0.2,
        image_id=np.array(shown),
        repeat=np.repeat(np.arange(-1, N_REPEATS), [len(train)] + [N_TEST] * N_REPEATS).clip(0),
        timekeys=["start", "end"],
    )
    save_recording(data, ws / "processed" / "tvsd" / "tiny_norm.h5")
    return ws


def config(job, ws, *overrides):
    quiet = ["trainer.enable_progress_bar=false", "device=cpu"] if job in ("pretrain", "align") else []
    return compose_config(job, [f"dataset.root={ws}/processed", f"run_dir={ws}/runs/{job}", *quiet, *overrides])


SCHEMES = {"neuron", "intra_region", "inter_region", "random"}  # the last one is not the dataset's own


@pytest.fixture(scope="module")
def pretrained(workspace):
    return pretrain(
        config(
            "pretrain", workspace, "model=tiny", "loader.batch_size=20", "trainer.max_epochs=8", "optimizer.lr=5e-3",
            "masking.random=0.5",
        )
    )  # fmt: skip


def alignment(ws, *overrides):
    return config(
        "align", ws, f"pretrained={ws}/runs/pretrain/model", f"embeddings={ws}/embeddings.h5", "loader.batch_size=20",
        "stage1.epochs=15", "stage2.epochs=10", "stage1.lr=3e-3", "stage2.lr=1e-3", "readout.dim_hidden=64",
        "readout.dropout=0", "stage2.free_layers=1", *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def aligned(workspace, pretrained):
    return align(alignment(workspace))


@pytest.fixture(scope="module")
def evaluated(workspace, aligned):
    run = evaluate(
        config(
            "evaluate",
            workspace,
            f"aligned={aligned}",
            f"embeddings={workspace}/embeddings.h5",
            "resamples=50",
            "per_area=true",
        )
    )
    return json.loads((run / "retrieval.json").read_text())


def test_pretraining_reports_ridge_beside_the_model(pretrained):
    rows = {row["scheme"]: row for row in read_metrics(pretrained)["rows"]}
    assert set(rows) == SCHEMES
    for scheme, row in rows.items():
        baselines = row["baselines"]
        assert 0 < baselines["ridge from the units kept"] < baselines["training mean"]
        if scheme != "intra_region":  # a part of twelve units is too few for factors fitted to 80 responses
            assert 0 < baselines["factor analysis"] < baselines["training mean"]
        for name, difference in row["model less baseline"].items():
            assert difference["value"] == pytest.approx(row["model"] - baselines[name])
            assert difference["low"] <= difference["value"] <= difference["high"]
    assert read_metrics(pretrained)["split"] == "test"


def test_stage_1_leaves_the_encoder_as_pretrained_and_stage_2_moves_its_last_layer_alone(pretrained, aligned):
    stage1, stage2 = (ImageAligner.load_pretrained(aligned / m) for m in ("model_stage1", "checkpoints/last.ckpt"))
    from neurobridge_tb import NeuroBridgeModel

    encoder = NeuroBridgeModel.load_pretrained(pretrained / "model").state_dict()
    moved = {
        name
        for name, value in encoder.items()
        if isinstance(value, torch.Tensor) and not torch.equal(stage2.encoder.state_dict()[name], value)
    }
    assert moved and all(name.startswith("proc_layers.0.") for name in moved)
    for name, value in encoder.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(stage1.encoder.state_dict()[name], value), name


def test_each_stage_exports_the_best_model_so_far_and_the_linear_path_stays_in_closed_form(aligned):
    losses = pd.read_csv(aligned / "metrics.csv").dropna(subset="val/loss")
    best = {m: ImageAligner.load_pretrained(aligned / m).state_dict() for m in ("model_start", "model_stage1", "model")}
    for name in ("linear.unit_rows.weight", "linear.mean_rows.weight", "to_contrastive.maps.0"):
        assert best["model_start"][name].any() and torch.equal(best["model_start"][name], best["model"][name])
    if losses["val/loss"].idxmin() != losses.index[0]:
        assert not torch.equal(*(best[m]["projector.linear_contrastive.weight"] for m in ("model_start", "model")))


def test_forgetting_is_a_number_under_the_masks_of_the_pretraining(aligned):
    rows = read_metrics(aligned)["forgetting"]
    assert {row["scheme"] for row in rows} == SCHEMES
    assert all(row["before"] > 0 and row["after"] > 0 for row in rows)


def test_l2sp_holds_the_free_layers_near_their_pretrained_weights(workspace, pretrained, tmp_path):
    """With augmentations."""
    moved = {}
    for weight in (0.0, 100.0):
        run = align(
            alignment(
                workspace, f"run_dir={tmp_path}/{weight}", "stage1.epochs=2", "stage2.epochs=4",
                "stage2.replay_weight=0", f"stage2.l2sp_weight={weight}", "augment.noise=0.1",
                "augment.average_repeats=true",
            )
        )  # fmt: skip
        before, after = (ImageAligner.load_pretrained(run / m) for m in ("model_start", "checkpoints/last.ckpt"))
        pairs = zip(before.encoder.proc_layers.parameters(), after.encoder.proc_layers.parameters(), strict=True)
        moved[weight] = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
        losses = pd.read_csv(run / "metrics.csv")["val/contrastive"].dropna()
        assert losses.iloc[-1] < np.log(N_VALID)  # of a model that knows nothing
    assert 0 < moved[100.0] < 0.3 * moved[0.0]


def test_an_unknown_setting_and_a_batch_of_one_are_refused(workspace, pretrained, tmp_path):
    with pytest.raises(InputError, match="a setting of `align`"):
        alignment(workspace, f"run_dir={tmp_path}/a", "loss=clip")
    with pytest.raises(InputError, match="batch_size of two or more"):
        align(alignment(workspace, f"run_dir={tmp_path}/b", "loader.batch_size=1"))


def test_retrieval_is_above_chance_and_has_its_baselines(evaluated):
    assert evaluated["n_candidates"] == N_TEST and evaluated["simulated"]
    top5 = {
        (r["model"], r["trials"]): r["top5"]["value"] for r in evaluated["rows"] if r["direction"] != "image to neural"
    }
    assert top5["NeuroBridge, stage 2", "repeat average"] > 0.7
    assert top5["ridge", "repeat average"] > 0.7
    assert top5["ridge, shuffled labels", "repeat average"] < 0.7
    assert {"MLP", "NeuroBridge, linear start", "NeuroBridge, stage 1"} <= {model for model, _ in top5}


def test_each_area_alone_has_the_same_table(evaluated):
    assert set(evaluated["rows by area"]) == {"V1", "IT"}
    names = [(row["model"], row["trials"], row["direction"]) for row in evaluated["rows"]]
    for rows in evaluated["rows by area"].values():
        assert [(row["model"], row["trials"], row["direction"]) for row in rows] == names
        assert rows != evaluated["rows"]


def test_averaged_responses_equal_the_mean_over_repeats(workspace, aligned):
    model = ImageAligner.load_pretrained(aligned / "model")
    test = collect_responses(Tvsd(root=workspace / "processed"), model.encoder, "tiny_norm", "test")
    averaged = test.averaged()
    assert list(averaged.image_ids) == sorted(set(test.image_ids))
    np.testing.assert_allclose(averaged.values, test.values[test.by_repeat()].mean(0), rtol=1e-5)
    contrastive, _ = embed_responses(model, averaged, batch_size=5)
    torch.testing.assert_close(contrastive, embed_responses(model, averaged)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(contrastive.norm(dim=1), torch.ones(N_TEST))


MODULE = """
from neurobridge_tb.generation import register_generator

class Halved:
    def __init__(self, by):
        self.by = by

    def generate(self, embedding, *, num_samples=1, seed=0, init_images=None):
        return (init_images // self.by)[:, None].expand(-1, num_samples, -1, -1, -1)

register_generator("halved", Halved)
"""


def test_reconstruction_and_report(workspace, evaluated, aligned, tmp_path, monkeypatch):
    from neurobridge_tb.generation import base

    monkeypatch.setattr(base, "_generators", dict(base._generators))
    (tmp_path / "my_generator.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    model = FlowModel({"final": DIM}, 4, {"encoder_channels": (8, 8, 8), "decoder_channels": (8, 8, 8, 8)},
                      {"dim": 16, "depth": 1, "heads": 2})  # fmt: skip
    features = EmbeddingCache.load(workspace / "embeddings.h5").embeddings
    model.codes.load_state_dict(TargetCodes.fit(features, {"final": DIM}, 4).state_dict())
    settings = config(
        "reconstruct", workspace, f"aligned={aligned}", f"embeddings={workspace}/embeddings.h5",
        f"images={workspace}/images", f"flow.weights={workspace}/decoder", "flow.steps=2", "flow.candidates=1",
        "flow.guidance=0", "judge.image_size=64", "num_samples=2", "modules=[my_generator]",
        "backends=[nearest, ridge_pixels, flow, halved]", "options.halved.by=2",
    )  # fmt: skip
    decoder = FlowDecoder(model, encoder_name="random", preprocessing_hash="none")
    images = StimulusImages(workspace / "images", find_images(workspace / "images"))
    decoder.save(workspace / "decoder", training={"image_files": sorted(images.fingerprints())})
    with pytest.raises(
        InputError, match=f"trained without the test images[\\s\\S]*{N_TEST} of {N_TEST} in the training of flow"
    ):
        reconstruct(settings)
    decoder.save(workspace / "decoder")
    run = reconstruct(settings)
    with h5py.File(run / "reconstructions.h5") as file:
        assert file["seen"].shape == (N_TEST, 64, 64, 3)
        assert file["flow"].shape == (N_TEST, 2, 64, 64, 3)
        np.testing.assert_array_equal(file["halved"][:, 1], file["ridge_pixels"][:, 0] // 2)
        cosine = file["cosine"][:]
    metrics = read_metrics(run)
    backends = {row["backend"]: row["metrics"] for row in metrics["rows"]}
    drawn = {"flow", "flow from true features"}
    assert set(backends) == {"nearest", "ridge_pixels", "halved", "mean training image"} | drawn
    assert all(-1 <= m["PixCorr"] <= 1 for m in backends.values())
    predicted = metrics["predicted embedding"]
    assert 0 < predicted["norm over true norm"] < 2
    assert cosine.mean() == pytest.approx(predicted["cosine to true, less the training mean"], abs=1e-5)
    page = build_report(workspace).read_text(encoding="utf-8")
    assert "simulated" in page.lower() and "flow from true features" in page


def test_what_one_area_gives_is_drawn_by_a_model_of_that_area_alone(workspace, aligned, tmp_path):
    drawn = {}
    closed_form = ["stage1.epochs=0", "stage2.epochs=0"]
    of_area = align(alignment(workspace, f"run_dir={tmp_path}/align_V1", "areas=[V1]", *closed_form))
    for model, areas in ((of_area, "areas=[V1]"), (aligned, "areas=null")):
        run = reconstruct(reconstruction(workspace, tmp_path / model.name, model, areas))
        assert read_metrics(run)["areas"] == (["V1"] if model == of_area else None)
        with h5py.File(run / "reconstructions.h5") as file:
            drawn[areas] = file["cosine"][:]
    assert not np.allclose(*drawn.values())


def test_nothing_to_train_and_no_closed_form_is_refused(workspace, tmp_path):
    nothing = ["stage1.epochs=0", "stage2.epochs=0", "readout.linear_path=false"]
    with pytest.raises(InputError, match="an epoch of training"):
        align(alignment(workspace, f"run_dir={tmp_path}/run", *nothing))


def reconstruction(ws, run_dir, aligned, *overrides):
    return config(
        "reconstruct", ws, f"run_dir={run_dir}", f"aligned={aligned}", f"embeddings={ws}/embeddings.h5",
        f"images={ws}/images", "backends=[ridge_pixels]", "judge.image_size=32", *overrides,
    )  # fmt: skip


@pytest.mark.parametrize(
    "other", ["areas=[V1]", "time_window=[0,0.1]", "exclude_test_concepts=true", "train_share=0.5"]
)
def test_pictures_are_drawn_of_the_very_pairs_that_the_model_was_aligned_on(workspace, aligned, tmp_path, other):
    name = other.partition("=")[0]
    with pytest.raises(InputError, match=f"{name}=[\\s\\S]*Use the setting of the alignment run"):
        reconstruct(reconstruction(workspace, tmp_path / "run", aligned, other))
    assert not [path for path in (tmp_path / "run").iterdir() if not path.name.startswith(".run.lock")]


def test_a_backend_that_nothing_registers_is_refused_before_any_work(workspace, tmp_path):
    job = config(
        "reconstruct", workspace, f"run_dir={tmp_path}/run", "aligned=nowhere", f"embeddings={workspace}/embeddings.h5",
        f"images={workspace}/images", "backends=[nearest, mine]",
    )  # fmt: skip
    with pytest.raises(InputError, match="Found mine[\\s\\S]*modules"):
        reconstruct(job)


def test_embeddings_of_another_encoder_are_refused(workspace, aligned, tmp_path):
    cache = EmbeddingCache.load(workspace / "embeddings.h5")
    other = EmbeddingCache(cache.ids, cache.embeddings, encoder="another", preprocessing_hash="none")
    other.save(tmp_path / "other.h5")
    with pytest.raises(InputError, match="another"):
        evaluate(
            config(
                "evaluate", workspace, f"aligned={aligned}", f"embeddings={tmp_path}/other.h5", f"run_dir={tmp_path}"
            )
        )
    assert not (tmp_path / "retrieval.json").exists()


def test_an_image_without_embedding_is_named(workspace, pretrained, tmp_path):
    cache = EmbeddingCache.load(workspace / "embeddings.h5")
    fewer = EmbeddingCache(cache.ids[5:], cache.embeddings[5:], encoder="random", preprocessing_hash="none")
    fewer.save(tmp_path / "fewer.h5")
    with pytest.raises(InputError, match=cache.ids[0]):
        align(alignment(workspace, f"embeddings={tmp_path}/fewer.h5", f"run_dir={tmp_path}/run"))
