"""A training run lives in one folder: config, checkpoints, logs, metrics and the exported model."""

import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from neurobridge_tb.configs.parts import TrainerConfig
from neurobridge_tb.configs.settings import RunConfig
from neurobridge_tb.devices import allow_tf32, computing_dtype, find_device
from neurobridge_tb.engine.checkpoint_io import RunCheckpoint, SafeCheckpointIO, find_fault, latest_readable, previous
from neurobridge_tb.engine.endings import LastValidation, OwnSignals
from neurobridge_tb.engine.modules.window_module import WindowModule
from neurobridge_tb.engine.run_lock import lock_run
from neurobridge_tb.engine.run_log.loggers import run_loggers
from neurobridge_tb.engine.run_log.progress_lines import ProgressLines
from neurobridge_tb.engine.run_log.quiet import quiet_lightning
from neurobridge_tb.engine.saved_settings import Settings
from neurobridge_tb.errors import InputError, NeuroBridgeError, first_line
from neurobridge_tb.files import read_json, write_aside, write_json
from neurobridge_tb.models.pretrained import check_model_folder
from neurobridge_tb.processes import is_first_process

_OF_OTHER_PARAMETERS = ("parameter group", "loading state_dict")  # in PyTorch's errors
_OF_LOST_PROCESSES = ("by peer", "remote process exited", "Broken pipe")  # in those of gloo and NCCL


class ProcessError(NeuroBridgeError):
    """One of several processes of a training has ended before the others."""


class RunFolder:
    """Folder of one run; running again with the same config resumes from its last checkpoint.

    What may change: settings of the trainer, e.g. more epochs, and where things lie. A folder without a checkpoint that
    can be read is new, whatever was tried in it.

    Args:
        config: The run's config; ``config.run_dir`` is the folder.
        recordings: Files that it trains on.

    Attributes:
        resumed: The checkpoint that the run goes on from; None where it begins.

    Raises:
        InputError: The folder holds a run with other settings, or with recordings of other contents.
    """

    def __init__(self, config: RunConfig, recordings: Iterable[Path] = ()):
        self.config, self.path = config, Path(config.run_dir)
        lock_run(self.path)
        check_model_folder(self.model)
        settings = Settings(config, recordings)
        self.resumed = latest_readable(self._checkpoints / "last.ckpt")
        if self.resumed is not None and (other := settings.differences(self.path)):
            raise InputError(
                expected=f"a new run folder, or one of a run with the same config (to resume it), at {self.path}",
                found=f"a run with other settings: {', '.join(other)}",
                fix="Set run_dir=<another folder>, or delete that folder to start over.",
            )
        if is_first_process():
            settings.save(self.path)

    @property
    def model(self) -> Path:
        """Folder of the exported model."""
        return self.path / "model"

    @property
    def start(self) -> Path:
        """Folder of the model as it was before training."""
        return self.path / "model_start"

    @property
    def has_trained(self) -> bool:
        """Whether an epoch was finished, by this start or one before it."""
        last = self._checkpoints / "last.ckpt"
        return last.exists() or previous(last).exists()

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint with the lowest monitored metric, of a run that has trained.

        Raises:
            InputError: It is missing or damaged.
        """
        path = self._checkpoints / "best.ckpt"
        if fault := find_fault(path) if path.exists() else "it is missing":
            raise InputError(
                expected=f"the checkpoint of the best epoch, {path}",
                found=fault,
                fix="Restore the file, or delete the folder that it lies in to train anew.",
            )
        return path

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def best_score(self) -> float:
        """The monitored metric of the best checkpoint."""
        callbacks = torch.load(self.best_checkpoint, map_location="cpu", weights_only=True)["callbacks"].values()
        return float(next(state["current_score"] for state in callbacks if state.get("monitor")))

    def processes(self, settings: TrainerConfig) -> int:
        """How many processes share a training."""
        quiet_lightning()
        return _lightning_trainer(
            **self._placement(settings), logger=False, enable_checkpointing=False, enable_model_summary=False
        ).world_size

    def trainer(
        self,
        settings: TrainerConfig,
        callbacks: list[Callback],
        *,
        monitor: str,
        every_n_epochs: int = 1,
        some_unused: bool = False,
    ) -> L.Trainer:
        """A Lightning Trainer that logs and checkpoints here.

        Args:
            settings: Arguments of ``lightning.Trainer``; where there is no terminal, lines stand for the progress bar.
            callbacks: More callbacks.
            monitor: Logged metric whose lowest value marks the best checkpoint.
            every_n_epochs: Validate and checkpoint after so many epochs (few labels make short epochs). Default 1.
            some_unused: Some parameters get no gradient in some steps, for which several processes have to look.

        Raises:
            InputError: Lightning refuses the settings.
        """
        quiet_lightning()
        attempt = max(self._attempts(), default=-1) + 1
        folder = self._checkpoints
        common: dict[str, Any] = {"enable_version_counter": False, "every_n_epochs": every_n_epochs}
        best = RunCheckpoint(folder, filename="best", monitor=monitor, **common)
        last = RunCheckpoint(folder, filename="last", **common)  # best or not
        if settings.enable_progress_bar and not sys.stdout.isatty():
            settings = replace(settings, enable_progress_bar=False)
            callbacks = [*callbacks, ProgressLines()]
        arguments = asdict(settings)
        placement = self._placement(settings)
        if some_unused and placement["strategy"] == "ddp":
            placement["strategy"] = "ddp_find_unused_parameters_true"
        allow_tf32(self.config.precision)
        loggers = run_loggers(arguments.pop("logger"), self.path, attempt)
        if settings.max_steps < 0 and (settings.max_epochs or 0) < 0:
            raise InputError(
                expected="a length of the training, over which the learning rate is laid out",
                found=f"trainer.max_epochs={settings.max_epochs} and trainer.max_steps={settings.max_steps}",
                fix="Set one of them; trainer.max_time may stop it before.",
            )
        trainer = _lightning_trainer(
            default_root_dir=self.path,
            logger=loggers,
            callbacks=[best, last, OwnSignals(), LastValidation(), *callbacks],
            plugins=[SafeCheckpointIO()],
            check_val_every_n_epoch=every_n_epochs,
            use_distributed_sampler=False,  # our loaders share out their windows themselves
            **arguments | placement,
        )
        if trainer.world_size == 1 and not is_first_process():
            raise InputError(
                expected="a process of its own, as the settings of trainer share the training among none",
                found="one of several, by SLURM_PROCID, RANK or LOCAL_RANK, of which the first alone writes",
                fix="Set trainer.devices, trainer.num_nodes and trainer.strategy=ddp, or start it alone (srun -n 1).",
            )
        return trainer

    def _placement(self, settings: TrainerConfig) -> dict[str, Any]:
        """Lightning's arguments for the config's device and precision."""
        device, dtype = find_device(self.config.device), computing_dtype(self.config.precision)
        return {
            "accelerator": device.type,
            "devices": settings.devices if device.index is None else [device.index],
            "num_nodes": settings.num_nodes,
            "strategy": settings.strategy,
            "precision": "32-true" if dtype == torch.float32 else self.config.precision,
        }

    def fit(self, trainer: L.Trainer, module: WindowModule, train: Any, valid: Any) -> None:
        """Fit, from the last checkpoint where there is one, and gather the logs of all attempts.

        Raises:
            InputError: The checkpoint is of another version, or Lightning refuses the settings.
            ProcessError: Another process of this training has ended.
        """
        last = self.resumed
        if getattr(self.config, "compile", False):
            module.compile_networks()
        for loader in (x for x in tree_leaves((train, valid)) if isinstance(x, DataLoader)):
            loader.pin_memory = trainer.strategy.root_device.type == "cuda"  # copies that the device need not wait for
        try:
            trainer.fit(module, train, valid, ckpt_path=last, weights_only=True)
        except MisconfigurationException as error:  # e.g. of a share of the batches that is less than one
            raise _refused(error) from error
        except (ValueError, RuntimeError) as error:
            if trainer.world_size > 1 and any(part in str(error) for part in _OF_LOST_PROCESSES):
                raise ProcessError(
                    f"Another process of this training has ended ({first_line(error)}).\n"
                    "Its message stands above, unless the system ended it (e.g. for want of memory).\n"
                    "Run the same command again to go on."
                ) from error
            if last is None or not any(part in str(error) for part in _OF_OTHER_PARAMETERS):
                raise
            raise InputError(
                expected="a run that this version of neurobridge-tb began",
                found=f"{last}, whose network or optimizer has other parameters",
                fix="Give another run_dir, or go on with the version that began it.",
            ) from error
        if trainer.is_global_zero:
            self._gather_logs()

    def note(self, name: str, content: Any) -> None:
        """Write a JSON file of that name; of several processes, the first one does."""
        if is_first_process():
            write_json(self.path / name, content)

    def _attempts(self) -> list[int]:
        """Numbers of the starts that have a log, from 0."""
        names = (path.name.removeprefix("version_") for path in (self.path / "logs").glob("version_*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def _gather_logs(self) -> None:
        """One metrics.csv of all attempts: a later attempt replaces the steps that it repeated."""
        rows = pd.DataFrame()
        for attempt in self._attempts():
            try:
                new = pd.read_csv(self.path / "logs" / f"version_{attempt}" / "metrics.csv")
            except (FileNotFoundError, ValueError):  # it was stopped before its first line, or a line is damaged
                continue
            if "step" not in new or new["step"].dtype.kind not in "iuf":
                continue
            rows = pd.concat([rows[rows["step"] < new["step"].min()] if len(rows) else rows, new])
        with write_aside(self.path / "metrics.csv") as aside:
            rows.to_csv(aside, index=False)


def _lightning_trainer(**arguments: Any) -> L.Trainer:
    """A Trainer.

    Raises:
        InputError: Lightning refuses the arguments.
    """
    try:
        return L.Trainer(**arguments)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> InputError:
    return InputError(
        expected="settings that lightning.Trainer takes",
        found=first_line(error),
        fix="Correct the settings of trainer, e.g. trainer.devices or trainer.strategy.",
    )


def read_metrics(run_dir: str | Path) -> dict[str, Any]:
    """``metrics.json`` of a finished run."""
    return read_json(Path(run_dir) / "metrics.json")
