"""The closed-form start on activity that lacks something: predictions are finite, and exact where they are means."""

import warnings

import numpy as np
import pytest
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.starts.factor_start import start_from_factor_analysis
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking import Mask

BIN, WINDOW = 0.05, 0.25


def activity(n_bins=400, n_units=12, seed=0):
    rng = np.random.default_rng(seed)
    state = np.zeros((n_bins, 2))
    for t in range(1, n_bins):
        state[t] = 0.9 * state[t - 1] + 0.4 * rng.normal(size=2)
    return (state @ rng.normal(size=(2, n_units)) + 0.5 * rng.normal(size=(n_bins, n_units))).astype(np.float32)


def save(folder, name, values, train_bins=None, prefix=None, kind="mua"):
    n_bins, end = len(values), len(values) * BIN
    data = build_recording(
        brainset_id="test",
        session_id=name,
        subject_id="s",
        units={"id": [f"{prefix or name}/u{i}" for i in range(values.shape[1])]},
        splits={"train": ([0.0], [BIN * (train_bins or n_bins // 2)]), "valid": ([0.6 * end], [end])},
        simulated=True,
        **{kind: (values, BIN)},
    )
    save_recording(data, folder / f"{name}.h5")


def started(folder, modality="mua", **settings):
    dataset = BinnedRecordings(folder)
    torch.manual_seed(0)
    model = NeuroBridgeModel(
        modality=modality, sequence_length=WINDOW, latent_step=WINDOW, dim=16, depth=1, dim_head=8, num_factors=8,
        **settings,
    )  # fmt: skip
    model.init_vocabs(dataset)
    train = dataset.get_sampling_intervals("train")
    model.fit_unit_statistics(dataset, train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start_from_factor_analysis(model, dataset, train)
    return dataset, model.eval()


@torch.no_grad()
def predicted(dataset, model, name, keep=None):
    """Predictions (T, N) of all cells of a window, given those kept."""
    recording = dataset.get_recording(name)
    window = recording.slice(0.0, WINDOW)
    n_bins, areas = model.window_grid(window)
    keep = np.ones((n_bins, len(areas)), dtype=bool) if keep is None else keep
    inputs = collate([model.tokenize_with_targets(window, Mask("all", keep, np.ones_like(keep)))])["model_inputs"]
    inputs |= {"output_unit_index": inputs["output_unit_index"].new_tensor(model.unit_index(recording))[None]}
    inputs["output_timestamps"] = inputs["input_timestamps"]
    del inputs["output_cells"], inputs["output_cell_count"]
    return model(**inputs)[0]


def test_units_without_variance_or_without_values_are_predicted_by_their_mean(tmp_path):
    values = activity()
    values[:, 3], values[:, 5] = 7.0, np.nan
    save(tmp_path, "some", values)
    dataset, model = started(tmp_path)
    found = predicted(dataset, model, "some")
    assert torch.isfinite(found).all() and found[:, [3, 5]].abs().max() < 1e-12 and found[:, 0].abs().max() > 0.1


def test_a_bin_in_which_nothing_is_kept_is_predicted_from_the_others(tmp_path):
    save(tmp_path, "some", activity())
    dataset, model = started(tmp_path)
    keep = np.ones((5, 12), dtype=bool)
    keep[2] = False
    assert (predicted(dataset, model, "some", keep)[2].abs() > 0.05).any()
    alone = np.zeros_like(keep)
    alone[0, 0] = True  # the least that a window may keep
    assert torch.isfinite(predicted(dataset, model, "some", alone)).all()


@pytest.mark.parametrize(("n_units", "train_bins"), [(1, 200), (1, 5), (12, 5), (12, 7), (40, 6)])
def test_few_units_or_fewer_bins_than_factors(tmp_path, n_units, train_bins):
    save(tmp_path, "few", activity(n_units=n_units), train_bins)
    dataset, model = started(tmp_path)
    assert torch.isfinite(predicted(dataset, model, "few")).all()


def test_silent_units_of_counts_keep_their_mean_rate(tmp_path):
    counts = np.random.default_rng(0).poisson(np.exp(activity()), size=(400, 12)).astype(np.uint8)
    counts[:, 4] = 0
    save(tmp_path, "counts", counts, kind="counts")
    dataset, model = started(tmp_path, "spike_counts")
    found = predicted(dataset, model, "counts").exp()
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:, 4], torch.full((5,), 0.5 / 200))  # half a spike in the training bins


def test_a_recording_without_training_windows_is_left_out(tmp_path):
    save(tmp_path, "one", activity())
    save(tmp_path, "two", activity(seed=1), prefix="one")  # the same units
    dataset = BinnedRecordings(tmp_path)
    _, model = started(tmp_path)
    train = dataset.get_sampling_intervals("train")
    train["two"] = train["two"].slice(1e6, 2e6)
    model.factors.dynamics_rows.weight.zero_()
    assert set(start_from_factor_analysis(model, dataset, train)) == {"one"}
    rows = model.factors.dynamics_rows.weight.abs().amax(1)
    assert dict(zip(model.factors.dynamics_rows.vocab, (rows > 0).tolist(), strict=True)) == {
        "NA": False, "one": True, "two": False,
    }  # fmt: skip


def test_loadings_of_another_number_of_factors_are_refused(tmp_path):
    save(tmp_path, "some", activity())
    _, model = started(tmp_path)
    folder = model.save_pretrained(tmp_path / "model")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"num_factors": 8', '"num_factors": 4'))
    with pytest.raises(InputError, match=r"config"):
        NeuroBridgeModel.load_pretrained(folder)
