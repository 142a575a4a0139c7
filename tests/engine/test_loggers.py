"""Where curves go: each logger without a network, and what is refused."""

import csv
import sys

import pytest

from neurobridge_tb.engine.run_log.loggers import LOGGERS
from neurobridge_tb.errors import InputError, MissingExtraError
from neurobridge_tb.jobs.pretrain import pretrain


def train(root, folder, logger):
    return pretrain(
        dataset="binned", root=str(root), run_dir=str(folder), model="tiny", logger=logger, max_epochs=1,
        limit_train_batches=2, limit_val_batches=1, log_every_n_steps=1, device="cpu", num_factors=0,
    )  # fmt: skip


FILES = {"csv": None, "tensorboard": "events.out.tfevents.*", "wandb": "*.wandb", "mlflow": "mlflow.db"}


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_training_is_logged_offline(logger, binned_root, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = train(binned_root, tmp_path / "run", logger)
    with open(folder / "metrics.csv", newline="") as file:
        assert any(row["train/loss"] for row in csv.DictReader(file))
    for name, pattern in FILES.items():
        if pattern is not None:
            assert any(folder.rglob(pattern)) == (name == logger), name


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_names_its_extra(logger, binned_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, logger, None)
    with pytest.raises(MissingExtraError, match=rf"neurobridge-tb\[{logger}\]"):
        train(binned_root, tmp_path / "run", logger)


def test_an_unknown_logger_is_refused(binned_root, tmp_path):
    with pytest.raises(InputError, match="csv|tensorboard|wandb|mlflow"):
        train(binned_root, tmp_path / "run", "comet")
