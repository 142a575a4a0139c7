"""The response is fitted where factors were not, and only where there is enough of that."""

import copy

import numpy as np
import torch

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.configs.pretrain import PretrainConfig
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.config import settle
from neurobridge_tb.engine.starts.factor_start import start_from_factor_analysis
from neurobridge_tb.engine.starts.response_start import _later_cells, fit_rate_response, set_recent_rates

BIN, WINDOW = 0.05, 0.2


def started(folder, n_bins, kind="spike_counts"):
    """A model at its start on few bins of many units, of whose loadings half is chance."""
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(n_bins, 3)) @ rng.normal(0, 0.3, (3, 60))
    counts = rng.poisson(np.exp(drive - 1.5)).astype(np.uint8)
    train = BIN * (n_bins // 2)
    data = build_recording(
        brainset_id="test",
        session_id="one",
        subject_id="s",
        units={"id": [f"u{i}" for i in range(60)]},
        splits={"train": ([0.0], [train]), "valid": ([train], [n_bins * BIN])},
        simulated=True,
        **{"counts" if kind == "spike_counts" else "mua": (counts if kind == "spike_counts" else drive, BIN)},
    )
    save_recording(data, folder / "one.h5")
    dataset = BinnedRecordings(folder)
    config = settle(
        PretrainConfig,
        None,
        {
            "dataset": "binned",
            "root": str(folder),
            "windows": "continuous",
            "masking": {"neuron": 1.0, "temporal": 0.0},
        },
    )
    model = NeuroBridgeModel(
        modality=kind, sequence_length=WINDOW, latent_step=WINDOW, dim=16, depth=1, dim_head=8, num_factors=16
    )
    model.init_vocabs(dataset)
    intervals = dataset.get_sampling_intervals("train")
    model.fit_unit_statistics(dataset, intervals)
    start_from_factor_analysis(model, dataset, intervals)
    fit_rate_response(model, dataset, intervals, dataset.get_sampling_intervals("valid"), config)
    return model, dataset, config


def test_the_response_helps_on_activity_that_nothing_was_fitted_to(tmp_path):
    model, dataset, config = started(tmp_path, 1600)
    features, log_rates, counts = _later_cells(model, dataset, dataset.get_sampling_intervals("valid"), config)
    corrected = log_rates + model.eval().response(torch.from_numpy(features).float()).numpy()

    def loss(log_rates):
        return (np.exp(log_rates) - counts * log_rates).mean()

    mean = float(np.log(counts.mean()))
    assert loss(corrected) < loss(log_rates) < loss(np.full_like(log_rates, mean))


def test_few_windows_fit_no_response(tmp_path):
    assert (started(tmp_path, 700)[0].response.weights == 0).all()


def test_a_model_of_mua_has_none(tmp_path):
    assert started(tmp_path, 700, kind="mua")[0].response is None


def test_recent_rates_are_those_of_the_end_of_training(tmp_path):
    n_bins, rng = 1600, np.random.default_rng(0)
    rates = np.stack([np.full(n_bins, 0.5), np.linspace(0.1, 0.9, n_bins), np.zeros(n_bins)], axis=1)
    data = build_recording(
        brainset_id="test",
        session_id="one",
        subject_id="s",
        units={"id": ["steady", "rising", "silent"]},
        counts=(rng.poisson(rates).astype(np.float32), BIN),
        splits={"train": ([0.0, 1.0], [0.5, n_bins * BIN]), "valid": ([0.5], [1.0])},
        simulated=True,
    )
    save_recording(data, tmp_path / "one.h5")
    dataset = BinnedRecordings(tmp_path)
    model = NeuroBridgeModel(modality="spike_counts", sequence_length=WINDOW, latent_step=WINDOW, dim=16, depth=1)
    model.init_vocabs(dataset)
    intervals = dataset.get_sampling_intervals("train")
    model.fit_unit_statistics(dataset, intervals)
    set_recent_rates(model, dataset, intervals)
    counts = np.concatenate([data.spike_counts.value[:10], data.spike_counts.value[20:]])
    weights = np.exp(-np.arange(len(counts))[::-1] // 4 * 4 * BIN / (0.125 * len(counts) * BIN))  # of windows
    log_ratio = model.response.recent_rows.weight[model.unit_index(data), 0].numpy()
    mean = (counts.sum(0) + 0.5) / len(counts)
    expected = np.log((1 + weights @ counts) / (1 + weights.sum() * mean))
    np.testing.assert_allclose(log_ratio, expected, atol=0.02)
    assert log_ratio[1] > 0.3 > 0.1 > abs(log_ratio[0])


def test_models_from_before_it_predict_what_they_did(tmp_path):
    model = started(tmp_path, 1600)[0]
    fitted = model.response.weights
    assert fitted.abs().sum() > 0
    no_response = {k: v for k, v in model.state_dict().items() if not k.startswith("response")}
    no_recent = {k: v for k, v in model.state_dict().items() if not k.startswith("response.recent")}
    no_recent["response.weights"] = fitted[:-1]
    for state, weights in ((no_response, 0 * fitted), (no_recent, fitted * (torch.arange(len(fitted)) < 10))):
        older = NeuroBridgeModel(**model.config)
        older.load_state_dict(copy.deepcopy(state))
        assert (older.response.weights == weights).all()
        assert (older.response.recent_rows.weight == 0).all()
