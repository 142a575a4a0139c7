"""Where a training's curves go: CSV always, and beside it a service that the lab watches."""

import os
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from neurobridge_tb.errors import InputError, require

LOGGERS = ("csv", "tensorboard", "wandb", "mlflow")
_PROJECT = "neurobridge"


def run_loggers(name: str, folder: Path, attempt: int) -> list[Logger]:
    """Loggers of one attempt at a run.

    Args:
        name: One of ``LOGGERS``. ``wandb`` writes below ``folder/wandb``, and with WANDB_MODE=offline nowhere else;
            ``mlflow`` to the server that MLFLOW_TRACKING_URI names, else to ``folder/mlflow.db``.
        folder: Of the run; its last part names the run.
        attempt: How many there were before.

    Raises:
        InputError: There is no such logger.
        MissingExtraError: It is not installed.
    """
    if name not in LOGGERS:
        raise InputError(expected=f"logger={'|'.join(LOGGERS)}", found=name, fix="Choose one of these.")
    loggers: list[Logger] = [CSVLogger(folder, name="logs", version=attempt)]
    if name == "tensorboard":
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=attempt))
    if name == "wandb":
        require("wandb", extra="wandb")
        loggers.append(WandbLogger(name=folder.name, project=_PROJECT, save_dir=folder))
    if name == "mlflow":
        require("mlflow", extra="mlflow")
        require("sqlalchemy", extra="mlflow")  # a name under another, as val/loss has, needs a database
        server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
        loggers.append(MLFlowLogger(experiment_name=_PROJECT, run_name=folder.name, tracking_uri=server))
    return loggers
