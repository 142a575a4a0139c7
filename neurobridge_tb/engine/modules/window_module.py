"""What LightningModules that are trained on windows share."""

from typing import Any

import lightning as L
import torch

from neurobridge_tb.engine.finite_losses import FiniteLosses


class WindowModule(L.LightningModule):
    """Moves batches of windows to the device, and stops a training whose loss is not finite.

    A subclass notes the loss of each step in ``finite``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.finite = FiniteLosses()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The starts of windows stay behind: they are float64, which some devices lack, and serve to name windows."""
        on_host = {name: batch[name] for name in ("absolute_start",) if name in batch}
        moved = {name: x for name, x in batch.items() if name not in on_host}
        return super().transfer_batch_to_device(moved, device, dataloader_idx) | on_host

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer: Any = self.trainer
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:
            self.finite.check(self.current_epoch)

    def on_validation_start(self) -> None:
        self.finite.check(self.current_epoch)
