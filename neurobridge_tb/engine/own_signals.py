"""What ends a training that is told to stop."""

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
