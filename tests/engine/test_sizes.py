"""Few training windows get a small network and small batches; what was chosen is printed and saved."""

from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.configs.presets import FORECASTERS, GROUPS
from neurobridge_tb.data.windows import batch_size_for
from neurobridge_tb.engine.config import compose_config, open_dataset, settle
from neurobridge_tb.engine.sizes import settle_size
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.models import NeuroHorizonModel


@pytest.mark.parametrize(("windows", "size"), [(1, 8), (300, 8), (600, 16), (1_988, 32), (2_048, 64), (1_000_000, 64)])
def test_batches_follow_from_the_number_of_windows(windows, size):
    assert batch_size_for(windows) == size


def test_few_windows_are_read_by_the_laptop_model(binned_root, tmp_path, capsys):
    settings = {"dataset": "binned", "root": str(binned_root), "run_dir": str(tmp_path), "max_epochs": 1}
    pretrain(**settings, model={"dim": 16, "dim_head": 8, "num_factors": 4, "num_latents_per_step": 2})
    printed = capsys.readouterr().out
    assert "80 training windows: model=laptop" in printed and "batches of 8 windows" in printed
    saved = OmegaConf.load(tmp_path / "config.yaml").model
    assert (saved.depth, saved.ffn_dropout, saved.dim) == (2, 0.1, 16)
    assert compose_config("pretrain", ["dataset=binned", "dataset.root=a", "model=small"]).model.depth == 6


def test_few_windows_are_forecast_by_the_laptop_model(binned_root, capsys):
    settings = {"dataset": "binned", "root": str(binned_root), "model.bin_size": 0.05, "model.encoder.dim": 32}
    config = settle(ForecastConfig, None, settings)
    assert config.loader.batch_size == 0
    config = settle_size(config, open_dataset(config.dataset), group="forecaster", seconds=1.5)
    assert "training windows: forecaster=laptop" in capsys.readouterr().out
    laptop = FORECASTERS["laptop"]
    assert config.model.dim_hidden == laptop["dim_hidden"] and config.model.encoder.depth == laptop["encoder"]["depth"]
    assert config.model.encoder.dim == 32  # what is given stays
    NeuroHorizonModel(**asdict(config.model))


@pytest.mark.parametrize("group", ["model", "forecaster"])
def test_auto_leaves_open_only_what_every_size_settles(group):
    presets, _ = GROUPS[group]

    def open_settings(preset):
        nested = {f"{k}.{name}" for k, its in preset.items() if isinstance(its, dict) for name in open_settings(its)}
        return nested | {name for name, value in preset.items() if value is None}

    assert open_settings(presets["auto"])
    for name in ("laptop", "small"):
        assert not open_settings(presets[name])
