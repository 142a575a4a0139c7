"""BrainWideBench: its files are read, its splits sampled, its tasks predicted without a look at what is held out."""

import numpy as np
import pytest
import torch
from bwb_files import BRAINSET, N_UNITS, simulate_session, write_ground_truth
from safetensors import safe_open
from torch_brain.data import ArrayDict

from neurobridge_tb import NeuroBridgeModel, NeuroHorizonModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import IblBrainWideBench2026
from neurobridge_tb.datasets.areas import unit_areas
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.engine.starts.factor_start import start_from_factor_analysis
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.adapt import adapt
from neurobridge_tb.jobs.forecast import forecast
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.jobs.submit_bwb import submit_bwb
from neurobridge_tb.masking import MaskedTokenizer
from neurobridge_tb.metrics.spikes import poisson_d2
from neurobridge_tb.scoring.submissions.brain_wide_bench import write_bench_predictions

TINY = dict(dim=32, depth=1, dim_head=16, cross_heads=2, self_heads=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("bwb")
    simulate_session(root)
    simulate_session(root, session="11111111-33a3-405e-8336-b65ebc5cb07c", regime="pretrain", seed=1)
    return root / "selected_units"


@pytest.fixture(scope="module")
def dataset(root):
    return IblBrainWideBench2026(root, regime="eval")


@pytest.fixture(scope="module")
def session(dataset):
    return dataset.recording_ids[0]


def train(model, dataset, *, steps=150):
    """A short training on the train split; returns the model."""
    model.init_vocabs(dataset)
    intervals = dataset.get_sampling_intervals("train")
    if isinstance(model, NeuroHorizonModel):
        model.fit_units(dataset, intervals)
    else:
        model.fit_unit_statistics(dataset, intervals)
        start_from_factor_analysis(model, dataset, intervals)
    masked = None if isinstance(model, NeuroHorizonModel) else MaskedTokenizer(model, {"neuron": 1.0, "temporal": 1.0})
    optimizer, rng = torch.optim.Adam(model.parameters(), lr=1e-3), np.random.default_rng(0)
    (recording,) = dataset.recording_ids
    starts = [s for a, b in zip(intervals[recording].start, intervals[recording].end, strict=True) for s in (a, b - 1)]
    for step in range(steps):
        windows = [dataset[DatasetIndex(recording, s, s + 1.0)] for s in rng.choice(starts, 8)]
        if isinstance(model, NeuroHorizonModel):
            loss = model.training_loss(collate([model.tokenize_with_targets(w) for w in windows]))
        else:
            masked.set_epoch(step)
            batch = collate([masked(w) for w in windows])
            loss = model.masked_loss(model(**batch["model_inputs"]), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def model(dataset):
    torch.manual_seed(0)
    return train(NeuroBridgeModel(sequence_length=1.0, latent_step=0.25, bin_size=0.02, **TINY), dataset)


def test_regions_are_areas_and_ids_are_unique_over_sessions(root, dataset, session):
    units = dataset.get_recording(session).units
    assert units.id[0] == f"{session}/unit00" and units.area[:4].tolist() == ["VISp", "CA1", "LP", "root"]
    assert IblBrainWideBench2026(root, regime="eval", atlas="cosmos").get_recording(session).units.area[1] == "HPF"
    assert len(dataset.get_unit_ids()) == N_UNITS


def test_splits_are_the_benchmarks_own(root, dataset, session):
    test = dataset.get_sampling_intervals("test")[session]
    assert (test.start >= 220.0).all() and ((test.end - test.start) <= 1.2 + 1e-9).all() and len(test) > 4
    assert dataset.get_sampling_intervals("valid")[session].start[0] >= 180.0
    behaviour = IblBrainWideBench2026(root, regime="eval", suite="ts1").get_sampling_intervals("train")[session]
    assert (behaviour.start, behaviour.end) == ([0.0], [160.0])
    pretraining = IblBrainWideBench2026(root)
    (recording,) = pretraining.recording_ids
    assert pretraining.get_sampling_intervals("train")[recording].end[-1] == 180.0
    with pytest.raises(InputError, match="pretrain_test_domain"):
        pretraining.get_sampling_intervals("test")
    with pytest.raises(InputError, match="suite"):
        IblBrainWideBench2026(root, regime="eval", suite="pretrain")


@pytest.mark.parametrize("column", ["area", "area_name", "brain_region", "region_beryl", "location"])
def test_areas_are_found_under_upstreams_names(column):
    assert unit_areas(ArrayDict(id=np.array(["a", "b"]), **{column: np.array(["V1", "IT"])})).tolist() == ["V1", "IT"]
    assert unit_areas(ArrayDict(id=np.array(["a"]))).tolist() == [""]


@pytest.mark.parametrize("task, n_bins, n_units", [("co_smoothing", 50, 2), ("forecasting", 5, N_UNITS)])
def test_predictions_have_the_scorers_form_and_beat_the_mean_rate(
    model, dataset, session, tmp_path, task, n_bins, n_units
):
    path = write_bench_predictions(model, dataset, session, task, out=tmp_path, label="ours", seed=43)
    assert path == tmp_path / "ours" / f"ts2-{task}" / session / "seed_43.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    starts = tensors["window_timestamps"].numpy()
    assert metadata["task"] == f"ts2-{task}" and metadata["unit_filtering"] == "selected_units"
    assert tensors["predictions"].shape == (len(starts), n_bins, n_units)
    assert tensors["predictions"].dtype == torch.float16 and starts.dtype == np.float64
    first = bytes(tensors["unit_ids"][0].numpy()).rstrip(b"\0").decode()
    assert first == f"{session}/unit{'03' if task == 'co_smoothing' else '00'}"
    # every bin of each trial begins a window that fits into it
    trial = dataset.get_sampling_intervals("test")[session]
    assert starts[0] == trial.start[0] and round(starts[1] - starts[0], 6) == 0.02
    targets = write_ground_truth(tmp_path / "truth", dataset, session, task, starts)
    rates = tensors["predictions"].double().exp().reshape(-1, n_units).numpy()
    counts = targets.reshape(-1, n_units)
    assert poisson_d2(rates, counts, np.maximum(counts.mean(0), 1e-6)) > 0  # above the test's own mean


def test_what_is_held_out_is_not_seen(model, dataset, session, tmp_path):
    """The same predictions where the held-out units are silent."""
    simulate_session(tmp_path, without_held=True)
    predictions = []
    for data in (dataset, IblBrainWideBench2026(tmp_path / "selected_units", regime="eval")):
        path = write_bench_predictions(model, data, session, "co_smoothing", out=tmp_path, label="x", seed=43)
        with safe_open(path, framework="pt") as file:
            predictions.append(file.get_tensor("predictions"))
    torch.testing.assert_close(*predictions)


def test_neurohorizon_forecasts_too(dataset, session, tmp_path):
    torch.manual_seed(0)
    encoder = {"dim": 32, "depth": 1, "dim_head": 16}
    forecaster = NeuroHorizonModel(modality="spikes", history=0.9, horizon=0.1, encoder=encoder)
    train(forecaster, dataset, steps=10)
    path = write_bench_predictions(forecaster, dataset, session, "forecasting", out=tmp_path, label="h", seed=43)
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("predictions").shape[1:] == (5, N_UNITS)
    with pytest.raises(InputError, match="NeuroHorizonModel"):
        write_bench_predictions(forecaster, dataset, session, "co_smoothing", out=tmp_path, label="h", seed=43)


def test_pretraining_adaptation_and_submission_by_command(root, session, tmp_path):
    settings = {"dataset": "bwb", "dataset.root": str(root), "trainer.max_epochs": 1, "trainer.limit_train_batches": 2}
    model = pretrain(**settings, window="bwb", model="tiny", run_dir=str(tmp_path / "pretrain")) / "model"
    evaluation = {"dataset.root": str(root), "dataset.arguments.regime": "eval"}
    adapted = adapt(**settings | evaluation, pretrained=str(model), run_dir=str(tmp_path / "adapt")) / "model"
    submission = submit_bwb(**evaluation, pretrained=str(adapted), label="ours", run_dir=str(tmp_path / "submission"))
    rows = read_metrics(submission)["rows"]
    assert [row["task"] for row in rows] == ["co_smoothing", "forecasting"]
    assert rows[0]["file"] == f"ours/ts2-co_smoothing/{session}/seed_43.safetensors"
    assert all((submission / row["file"]).exists() for row in rows)
    with pytest.raises(InputError, match="regime=eval"):
        submit_bwb(**{"dataset.root": str(root)}, pretrained=str(adapted))


def test_neurohorizon_is_trained_and_submitted_by_command(root, tmp_path):
    run = forecast(
        **{"dataset": "bwb", "dataset.root": str(root), "dataset.arguments.regime": "eval", "forecaster": "tiny"},
        **{"model.modality": "spikes", "model.bin_size": 0.02, "model.history": 0.9, "model.horizon": 0.1},
        **{"trainer.max_epochs": 1, "trainer.limit_train_batches": 2, "stride": 100, "run_dir": str(tmp_path / "run")},
    )
    evaluation = {"dataset.root": str(root), "dataset.arguments.regime": "eval"}
    submission = submit_bwb(**evaluation, pretrained=str(run / "model"), run_dir=str(tmp_path / "submission"))
    assert [row["task"] for row in read_metrics(submission)["rows"]] == ["forecasting"]


def test_the_folder_is_named_where_it_is_empty(tmp_path):
    (tmp_path / BRAINSET / "pretrain").mkdir(parents=True)
    with pytest.raises(InputError, match="aws s3 sync"):
        IblBrainWideBench2026(tmp_path)
