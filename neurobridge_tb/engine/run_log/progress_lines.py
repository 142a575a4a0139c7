"""Where a training stands, in lines, for logs."""

import time
from typing import Any

from lightning.pytorch.callbacks import Callback

from neurobridge_tb.progress import LINE_SECONDS, duration


class ProgressLines(Callback):
    """Print where a training stands: after the first epoch, and then every half minute.

    A line says the epoch, the values that a progress bar would show, and about how long the rest takes.
    """

    def __init__(self) -> None:
        self._began = self._last = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._began, self._last, self._first_step = time.monotonic(), float("-inf"), trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if time.monotonic() - max(self._last, self._began) > LINE_SECONDS:
            self._print(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        last_epoch = trainer.max_epochs and trainer.current_epoch + 1 == trainer.max_epochs
        if last_epoch or time.monotonic() - self._last > LINE_SECONDS:
            self._print(trainer)

    def _print(self, trainer: Any) -> None:
        if not trainer.is_global_zero:
            return
        self._last, step, total = time.monotonic(), trainer.global_step, int(trainer.estimated_stepping_batches)
        metrics = trainer.progress_bar_metrics.items()
        values = [f"{name} {float(value):.4g}" for name, value in metrics if name != "v_num"]
        left = (self._last - self._began) / max(1, step - self._first_step) * (total - step)
        epochs = f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if trainer.max_epochs else "")
        print(", ".join([epochs, f"step {step}/{total}", *values, f"{duration(left)} left"]), flush=True)
