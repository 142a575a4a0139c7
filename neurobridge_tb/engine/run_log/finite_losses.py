"""Stop a training whose loss is not finite, without waiting for the device in every step."""

import torch
from torch import Tensor

from neurobridge_tb.errors import InputError


class FiniteLosses:
    """Losses since the last look, and what is needed to name the windows at fault.

    To read one number of a GPU is to wait for all that it has been given to do. So steps are noted, and looked at now
    and then: where something is logged, and before a checkpoint is written.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, Tensor, list[str], Tensor]] = []

    def note(self, loss: Tensor, output: Tensor, batch: dict) -> None:
        """Note a training step.

        Args:
            loss: Scalar.
            output: (B, …) what the model predicts for each window.
            batch: With ``session_id`` and ``absolute_start`` of each window.
        """
        finite = output.detach().isfinite().flatten(1).all(1)
        self._steps.append((loss.detach(), finite, batch["session_id"], batch["absolute_start"]))

    def check(self, epoch: int) -> None:
        """Look at the steps noted since the last call.

        Raises:
            InputError: A loss was not finite; it names the windows of that step.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        finite = torch.stack([loss for loss, *_ in steps]).isfinite().tolist()
        if all(finite):
            return
        loss, of_windows, sessions, starts = steps[finite.index(False)]
        faulty = (~of_windows).nonzero().flatten().tolist() or range(len(sessions))
        names = [f"{sessions[i]} at {float(starts[i]):.3f} s" for i in faulty]
        raise InputError(
            expected="a finite loss",
            found=f"{float(loss)} in epoch {epoch} on windows {', '.join(names[:4])}"
            + (f" and {len(names) - 4} more" if len(names) > 4 else ""),
            fix="Check those windows for extreme values, or lower optimizer.lr.",
        )
