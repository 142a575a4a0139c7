"""Scores under fixed masks: what a reference says on the same cells; nothing hidden is seen."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from small_models import save_encoder

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.score import score
from neurobridge_tb.masking.tasks import task_masks
from neurobridge_tb.metrics.spikes import bits_per_spike, posterior_mean
from neurobridge_tb.scoring.masked.few_shot import readout_inputs
from neurobridge_tb.scoring.queries import labels_text, read_queries
from neurobridge_tb.scoring.split_windows import SplitWindows

BINS = np.array([10, 14, 12])
AREAS = ["V1"] * 14 + ["CA1"] * 16


EDGES = np.concatenate([[0], np.cumsum(np.tile(BINS, 30))])  # of 90 trials, in bins
SPLITS = {"train": range(0, 60), "valid": range(60, 75), "test": range(75, 90)}


def save(folder, *, blanked=(), left_out=()):
    """A recording of 90 trials; the cells that are ``blanked`` are NaN, trials that are ``left_out`` in no split."""
    rng = np.random.default_rng(0)
    n_bins = EDGES[-1]
    state = np.repeat(rng.normal(0, 1, (n_bins // 3 + 1, 2)), 3, axis=0)[:n_bins]
    counts = rng.poisson(np.exp(state @ rng.normal(0, 0.8, (2, 30)))).astype(np.uint8)
    counts = counts.astype(np.float32) if blanked else counts
    for cells in blanked:
        counts[cells] = np.nan
    splits = {name: [k for k in trials if k not in left_out] for name, trials in SPLITS.items()}
    data = build_recording(
        brainset_id="test",
        session_id="scored",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(30)], "area": AREAS},
        counts=(counts, 0.05),
        splits={name: (0.05 * EDGES[some], 0.05 * EDGES[np.array(some) + 1]) for name, some in splits.items()},
        simulated=True,
    )
    save_recording(data, folder / "scored.h5")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    save(folder)
    save_encoder(folder, sequence_length=0.7, latent_step=0.1, num_latents_per_step=2, num_factors=16)
    return folder


@pytest.fixture(scope="module")
def blanked(root, tmp_path_factory):
    """The same with a unit that is absent at times, and bins in which all are, also all bins before the last fifth."""
    folder = tmp_path_factory.mktemp("blanked")
    first, last = EDGES[80], EDGES[81]
    gaps = [
        np.s_[first + 2 : first + 4],
        np.s_[: EDGES[20], 3],
        np.s_[EDGES[77] : EDGES[79], 5],
        np.s_[EDGES[84] : EDGES[85] - 2],
    ]
    save(folder, blanked=[*gaps, np.s_[last : last + 1], np.s_[EDGES[30] : EDGES[30] + 5]])
    shutil.copytree(root / "model", folder / "model")
    return folder


def run(root, out, *overrides):
    config = compose_config(
        "score",
        [
            f"dataset.root={root}",
            f"pretrained={root}/model",
            f"run_dir={out}",
            "windows=trial",
            "held_out=8",
            *overrides,
        ],
    )  # fmt: skip
    return {row["task"]: row for row in read_metrics(score(config))["rows"]}


def test_every_task_is_scored_beside_a_glm_that_learns(root, tmp_path):
    rows = run(root, tmp_path, "tasks=[co_smoothing,forward,intra_region,inter_region]")
    assert [row["units"] for row in rows.values()] == [8, 30, 7 + 8, 14 + 16]
    by_window = read_queries(tmp_path)
    for row in rows.values():
        for name, scores in row["scores"].items():
            ids, values = by_window[labels_text(row), f"scores.{name}"]
            assert len(ids) == 15 and values.mean() == pytest.approx(scores["value"])
        for scores in row["scores"].values():
            assert scores["low"] <= scores["value"] <= scores["high"]
    for task in ("co_smoothing", "intra_region", "inter_region"):
        for closed_form in ("Poisson GLM", "factor analysis"):
            assert rows[task]["scores"][closed_form]["value"] > 0.1  # units share a state
        assert abs(rows[task]["scores"]["NeuroBridge"]["value"]) < 0.1  # not trained: about the mean rate


@pytest.mark.parametrize("task", ["co_smoothing", "forward"])
@pytest.mark.parametrize("recording", ["root", "blanked"])
def test_the_model_scores_as_computed_window_by_window(recording, task, request, tmp_path):
    root = request.getfixturevalue(recording)
    row = run(root, tmp_path, f"tasks=[{task}]")[task]
    dataset, model = BinnedRecordings(root=root), NeuroBridgeModel.load_pretrained(root / "model").eval()
    recording = dataset.get_recording("scored")

    def windows(split):
        interval = dataset.get_sampling_intervals(split)["scored"]
        return [recording.slice(a, b) for a, b in zip(interval.start, interval.end, strict=True)]

    training = np.concatenate([w.spike_counts.value for w in windows("train")])
    null = posterior_mean(np.nansum(training, 0), (~np.isnan(training)).sum(0))
    rates, counts = [], []
    for window in windows("test"):
        values = np.asarray(window.spike_counts.value, dtype=float)
        (mask,) = task_masks(task, len(values), np.array(AREAS), held_out=8)
        cells = mask.target & ~np.isnan(values)
        if not (mask.keep & ~np.isnan(values)).any():
            continue
        with torch.no_grad():
            output = model(**collate([model.tokenize_with_targets(window, mask)])["model_inputs"])[0].exp().numpy()
        rates.append(np.full(values.shape, 1.0))
        rates[-1][np.ix_(cells.any(1), cells.any(0))] = output
        counts.append(np.where(cells, values, np.nan))
    expected = bits_per_spike(np.concatenate(rates), np.concatenate(counts), null)
    assert row["scores"]["NeuroBridge"]["value"] == pytest.approx(expected.spike_weighted, abs=1e-5)
    assert row["scores"]["NeuroBridge"]["mean over units"] == pytest.approx(expected.unit_mean, abs=1e-5)
    for closed_form in ("Poisson GLM", "factor analysis"):
        assert row["scores"][closed_form]["value"] > (0.1 if task == "co_smoothing" else -0.5)


def test_trials_without_values_are_as_if_they_were_in_no_split(root, tmp_path):
    """They are no evidence of silence: neither rates nor scores change."""
    trials, rows = (3, 17, 40, 62, 76, 83), []
    for name, settings in (
        ("nan", {"blanked": [np.s_[EDGES[k] : EDGES[k + 1]] for k in trials]}),
        ("gone", {"left_out": trials}),
    ):
        (tmp_path / name).mkdir()
        save(tmp_path / name, **settings)
        arguments = f"dataset.root={tmp_path / name}", f"pretrained={root}/model"
        rows.append(run(root, tmp_path / f"{name}_out", "tasks=[co_smoothing,forward]", *arguments))
    for task in rows[0]:
        for name, scores in rows[0][task]["scores"].items():
            assert scores == pytest.approx(rows[1][task]["scores"][name], abs=1e-6)


def test_factor_analysis_has_the_mean_rate_where_nothing_is_seen_and_the_models_floor(root, tmp_path):
    recording = SplitWindows.read(
        NeuroBridgeModel.load_pretrained(root / "model"), BinnedRecordings(root=root), "scored", windows="trial"
    )
    factors, counts = recording.factors, recording.counts["test"][0]
    np.testing.assert_allclose(factors.rates(counts, np.zeros(counts.shape, bool)), factors.mean + 0 * counts)
    keep = np.random.default_rng(0).random(counts.shape) < 0.5
    ratio = factors.fitted.predict(factors.inputs(counts), keep) * factors.inputs.std / factors.mean
    floor = 1 + ratio + np.sqrt((1 + ratio) ** 2 + 0.2**2)
    expected = factors.mean * floor / (1 + np.sqrt(1 + 0.2**2))
    np.testing.assert_allclose(factors.rates(counts, keep)[~keep], expected[~keep])


def test_a_readout_of_hidden_units_is_fitted_to_few_windows(root, tmp_path):
    rows = run(root, tmp_path, "tasks=[few_shot]", "shots=[2,30]")
    few, many = (rows[f"few_shot, {n} windows"]["scores"] for n in (2, 30))
    for name in ("NeuroBridge", "Poisson GLM", "factor analysis"):
        assert many[name]["value"] > max(0.1, few[name]["value"])
    with pytest.raises(InputError, match="2 to 60"):
        run(root, tmp_path, "tasks=[few_shot]", "shots=[61]")


def test_few_shot_readouts_see_nothing_hidden(root):
    model, dataset = NeuroBridgeModel.load_pretrained(root / "model").eval(), BinnedRecordings(root=root)
    recording = SplitWindows.read(model, dataset, "scored", windows="trial")
    window, counts = recording.windows["test"][0], recording.counts["test"][0]
    (mask,) = task_masks("co_smoothing", len(counts), np.array(AREAS), held_out=8)
    (seen,) = readout_inputs(model, [window], [mask])
    assert seen.shape == (len(counts), 32 + 16)
    window.spike_counts.value[mask.target] += 7
    np.testing.assert_array_equal(readout_inputs(model, [window], [mask])[0], seen)
    window.spike_counts.value[mask.keep] += 7
    assert np.abs(readout_inputs(model, [window], [mask])[0] - seen).max() > 0.1


def test_several_recordings_are_scored_one_by_one_and_together(root, tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    for name in ("scored", "again"):
        shutil.copy(root / "scored.h5", folder / f"{name}.h5")
        with h5py.File(folder / f"{name}.h5", "r+") as file:
            file["session"].attrs["id"] = name
    model = NeuroBridgeModel.load_pretrained(root / "model")
    model.extend_vocabs(BinnedRecordings(folder))
    model.save_pretrained(tmp_path / "model")
    arguments = [
        f"dataset.root={folder}",
        f"pretrained={tmp_path}/model",
        f"run_dir={tmp_path}",
        "tasks=[co_smoothing]",
    ]
    rows = read_metrics(score(compose_config("score", [*arguments, "windows=trial", "held_out=8"])))["rows"]
    assert [row["recording"] for row in rows] == ["again", "scored", "all"]
    one, together = rows[0]["scores"]["Poisson GLM"], rows[2]["scores"]["Poisson GLM"]
    assert together["value"] == pytest.approx(one["value"])
    assert together["high"] - together["low"] < one["high"] - one["low"]  # twice as many windows


def test_a_model_of_mua_is_refused(root, tmp_path):
    model = NeuroBridgeModel(modality="mua", sequence_length=0.7, latent_step=0.1, dim=32, depth=1, dim_head=16)
    model.init_vocabs(BinnedRecordings(root=root))
    model.save_pretrained(tmp_path / "mua")
    with pytest.raises(InputError, match="mua"):
        run(root, tmp_path / "out", f"pretrained={tmp_path / 'mua'}")
