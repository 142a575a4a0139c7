import pytest
import torch

from neurobridge_tb.engine.run_log.finite_losses import FiniteLosses
from neurobridge_tb.errors import InputError

BATCH = {"session_id": ["a", "b", "b"], "absolute_start": torch.tensor([2.0, 6.0, 9.0])}


def test_the_windows_at_fault_are_named_alone():
    losses = FiniteLosses()
    losses.note(torch.tensor(1.0), torch.zeros(3, 2, 2), BATCH)
    losses.check(0)
    output = torch.zeros(3, 2, 2)
    output[1, 0, 0] = torch.nan
    losses.note(torch.tensor(torch.nan), output, BATCH)
    with pytest.raises(InputError, match=r"epoch 3 on windows b at 6.000 s\.\n"):
        losses.check(3)
    losses.note(torch.tensor(torch.inf), torch.zeros(3, 2, 2), BATCH)  # a target at fault: any of them
    with pytest.raises(InputError, match=r"a at 2.000 s, b at 6.000 s, b at 9.000 s\.\n"):
        losses.check(3)
