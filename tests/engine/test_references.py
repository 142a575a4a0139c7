"""A recording that was not trained is known by its reference: later windows of that, and nothing after it."""

import numpy as np
import torch

from neurobridge_tb import NeuroHorizonModel
from neurobridge_tb._upstream import Interval
from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.data.forecast_windows import ForecastLoaders
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.datasets.reference_features import recording_features, reference_window
from neurobridge_tb.engine.references import Reference, divide, introduce
from neurobridge_tb.nn.forecasting.rate_modulation import FEATURES

BIN, SECONDS = 0.05, 20.0


SPLITS = {"train": ([0.0], [24.0]), "valid": ([24.0], [27.0]), "test": ([27.0], [30.0])}


def recordings(root, other_after: float = np.inf, splits: dict = SPLITS) -> BinnedRecordings:
    """One of 30 s whose units share a slow gain, and are other ones from some time on."""
    rng = np.random.default_rng(0)
    gain = np.sin(np.arange(600) * BIN * 3)[:, None] * np.linspace(-1, 1, 12)
    counts = rng.poisson(0.5 * np.exp(gain))
    later = np.arange(600) * BIN >= other_after
    counts[later] = np.random.default_rng(1).poisson(2.0, counts[later].shape)
    data = build_recording(
        brainset_id="test", session_id="new", subject_id="s", units={"id": [f"new/{i}" for i in range(12)]},
        counts=(counts, BIN), splits=splits,
    )  # fmt: skip
    save_recording(data, root / "new.h5")
    return BinnedRecordings(root=root)


def introduced(dataset: BinnedRecordings, seconds: float = SECONDS) -> tuple[NeuroHorizonModel, Reference]:
    torch.manual_seed(0)
    model = NeuroHorizonModel(
        modality="spike_counts", history=0.4, horizon=0.4, bin_size=BIN, unit_identity="features", dim_identity=8,
        encoder={"dim": 16, "depth": 1, "dim_head": 8, "dim_population": 8},
    )  # fmt: skip
    for table in model._tables().values():
        table.initialize_vocab(["old"])
    model.modulation.response[0, 2] = 0.5
    recording, train = dataset.get_recording("new"), dataset.get_sampling_intervals("train")["new"]
    reference = Reference(recording_features(recording, train, seconds=seconds), reference_window(train, seconds))
    loaders = ForecastLoaders(ForecastConfig(windows="continuous", stride=2), dataset, model)
    introduce(model, recording, "new", loaders, reference)
    return model, reference


def known(model: NeuroHorizonModel) -> dict[str, torch.Tensor]:
    """What a model knows of the new units."""
    tables = {"rows": model.modulation.rows, "departure": model.modulation.departure, "stats": model.unit_stats}
    ids = [f"new/{i}" for i in range(12)]
    return {name: table.weight[table.tokenizer(ids)].clone() for name, table in tables.items()}


def test_nothing_after_the_reference_is_read(tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    same, after, within = (
        known(introduced(recordings(folder, other))[0])
        for folder, other in zip(folders, (np.inf, SECONDS, SECONDS - 2), strict=True)
    )
    assert same["departure"].any() and same["rows"].any()
    for name, value in same.items():
        assert torch.equal(value, after[name]), name
        assert not torch.equal(value, within[name]), name


def test_every_unit_of_a_recording_holds_its_response(tmp_path):
    model, reference = introduced(recordings(tmp_path))
    rows = known(model)["departure"].unflatten(-1, (1 + FEATURES, 1 + FEATURES))
    assert (rows == rows[:1]).all() and torch.equal(rows[0], reference.departure)
    assert not model.modulation.departure(torch.tensor([model.unit_stats.tokenizer("old")])).any()


def test_a_reference_that_cannot_be_divided_keeps_the_response_of_all(tmp_path):
    model, reference = introduced(recordings(tmp_path), seconds=1.0)
    assert reference.departure is None
    assert known(model)["rows"].any() and not known(model)["departure"].any()


def test_trials_stay_whole():
    trials = Interval(start=np.arange(5.0), end=np.arange(5.0) + 0.9)
    early, later = divide(trials, 3.0)
    assert early.end.tolist() == [0.9, 1.9, 2.9] and later.start.tolist() == [3.0, 4.0]
    early, later = divide(Interval(start=np.array([2.0]), end=np.array([12.0])), 3.0)
    assert (early.end[0], later.start[0]) == (5.0, 5.0)
