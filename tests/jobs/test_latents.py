"""Latents of whole recordings: where they lie in time, what they stand beside, and their pictures."""

import numpy as np
import pandas as pd
import pytest

from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.latents import latents
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.decoding.latent_series import agreements, dissimilarity


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("latents"), np.random.default_rng(0)
    start = 2.0 * np.arange(20)
    recording = build_recording(
        brainset_id="b", session_id="a", subject_id="s", units={"id": ["u0", "u1", "u2"]},
        spikes=[rng.uniform(0, 40.5, 300) for _ in range(3)], end=40.5,
        trials={"start": start, "end": start + 1, "kind": np.tile(["x", "y"], 10), "size": np.arange(20.0)},
        splits={"train": ([0.0], [30.0]), "valid": ([30.0], [40.0])},
    )  # fmt: skip
    save_recording(recording, folder / "data" / "a.h5")
    dataset = BinnedRecordings(folder / "data")
    model = NeuroBridgeModel(
        modality="spikes", sequence_length=1.0, latent_step=0.25, num_latents_per_step=2, dim=16, depth=1, bin_size=0.05
    )
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    model.save_pretrained(folder / "model")
    return folder


def run(workspace, out, **settings):
    return latents(root=str(workspace / "data"), pretrained=str(workspace / "model"), run_dir=str(out), **settings)


def test_latents_with_times_columns_and_pictures(workspace, tmp_path):
    folder = run(workspace, tmp_path, table="trials", colour="kind")
    with np.load(folder / "a.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["latents"].shape == (160, 32)  # 40 whole windows of 4 steps
    np.testing.assert_allclose(arrays["times"][:5], [0.125, 0.375, 0.625, 0.875, 1.125])
    assert arrays["trials.kind"][:9].tolist() == ["x"] * 4 + [""] * 4 + ["y"]
    assert arrays["trials.row"][[0, 4, 8]].tolist() == [0, -1, 1] and np.isnan(arrays["trials.size"][4])
    names = sorted(path.name for path in (folder / "figures").iterdir())
    assert names == [
        f"a_{n}.{kind}" for n in ("components", "dissimilarity", "filled_in", "units") for kind in ("png", "svg")
    ]
    assert read_metrics(folder)["rows"][0]["steps"] == 160
    units = pd.read_csv(folder / "a_units.csv")
    assert units["id"].tolist() == ["u0", "u1", "u2"] and units["rate (Hz)"].between(4, 11).all()


def test_zarr(workspace, tmp_path):
    zarr = pytest.importorskip("zarr")
    folder = run(workspace, tmp_path, file_format="zarr")
    assert zarr.open_group(str(folder / "a.zarr"), mode="r")["latents"].shape == (160, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": "trial"}, "a table 'trial'[\\s\\S]*trials"),
        ({"table": "trials", "colour": "kin"}, "trials.kind"),
        ({"colour": "kind"}, "table="),
        ({"file_format": "csv"}, "npz or zarr"),
    ],
)
def test_bad_settings_are_named(workspace, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        run(workspace, tmp_path, **settings)


def test_conditions_that_are_alike_are_near():
    features = np.array([[1.0, 0, 0], [1.1, 0, 0], [0, 1, 0], [0, 1.1, 0], [1, 0.1, 0], [0.1, 1, 0]])
    matrix, names = dissimilarity(features, np.array(["a", "a", "b", "b", "c", "d"]))
    assert names.tolist() == list("abcd") and np.allclose(np.diag(matrix), 0) and np.allclose(matrix, matrix.T)
    assert matrix[0, 2] < matrix[0, 1]
    same, other = (matrix, names), (np.roll(matrix, 1, 0), names)
    assert "in a and b: Spearman 1.00" in agreements({"a": same, "b": same})[0]
    assert "1.00" not in agreements({"a": same, "b": other})[0]


def test_umap_stands_beside_components(workspace, tmp_path):
    pytest.importorskip("umap")
    folder = run(workspace, tmp_path, table="trials", colour="kind", umap=True)
    alone = run(workspace, tmp_path / "alone", table="trials", colour="kind")
    sizes = [(f / "figures" / "a_components.svg").stat().st_size for f in (folder, alone)]
    assert sizes[0] > 1.2 * sizes[1]  # two panels
