"""How a training ends that is told to stop, or that stops within an epoch."""

import signal
import threading
from typing import Any

from lightning.pytorch.callbacks import Callback


class OwnSignals(Callback):
    """Leave SIGTERM to the handler that was there before the trainer.

    Lightning puts one of its own before it, in which several processes wait for each other, whatever else they are
    waiting for. A process that had no handler keeps Lightning's.
    """

    def __init__(self) -> None:
        self._handler: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        self._restore()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._restore()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._restore()

    def _restore(self) -> None:
        if callable(self._handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)


class LastValidation(Callback):
    """Validate at ``trainer.max_steps`` too: within an epoch, Lightning would end there without a checkpoint."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
