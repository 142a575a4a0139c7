"""What LightningModules that are trained on windows share."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from neurobridge_tb.engine.optim import Group, adamw_with_warmup
from neurobridge_tb.engine.run_log.finite_losses import FiniteLosses


class WindowModule(L.LightningModule):
    """Moves batches of windows to the device, and stops a training whose loss is not finite.

    A subclass notes the loss of each step in ``finite``.

    Several processes (DDP) train as one with as many times the batch does: what is a mean over windows or cells is one
    over those of all processes.
    """

    model: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.finite = FiniteLosses()

    def setup(self, stage: str) -> None:
        # Buffers are constants. Were they broadcast, processes with fewer validation batches would be waited for.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, [n for n, _ in self.named_buffers()])

    def compile_networks(self) -> None:
        """Have torch.compile take over what computes a step: ``self.model``, in a subclass without one another."""
        self.model.compile(dynamic=True)

    def adamw(self, *groups: Group, weight_decay: float) -> dict[str, Any]:
        """The optimizer of the whole training, see :func:`adamw_with_warmup`; fused on a GPU, but with 16-mixed."""
        return adamw_with_warmup(
            *groups,
            weight_decay=weight_decay,
            total_steps=int(self.trainer.estimated_stepping_batches),
            fused=self.device.type == "cuda" and self.trainer.precision != "16-mixed",
        )

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By norm. Lightning refuses to with a fused optimizer in half precision, though bfloat16 needs no scaling."""
        if gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def over_processes(self, loss: Tensor, weight: Tensor | float) -> Tensor:
        """A mean over this process's part, such that the processes' gradients average to those of the mean over all.

        Args:
            loss: Scalar.
            weight: How many windows or cells it is the mean of.
        """
        if (processes := self.trainer.world_size) == 1:
            return loss
        own = torch.as_tensor(weight, dtype=torch.float32, device=self.device)
        return loss * (own * processes / self.trainer.strategy.reduce(own.clone(), reduce_op="sum"))

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As ever; upstream's embeddings empty the vocabularies that they are given, so they are given copies."""
        copied = {name: x.copy() if name.endswith(".vocab") else x for name, x in state_dict.items()}
        return super().load_state_dict(copied, *args, **kwargs)

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
