"""Where a job's networks compute, and how precisely: one choice for training, scoring, embedding and drawing."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neurobridge_tb.configs.settings import JobConfig
from neurobridge_tb.errors import InputError

Module = TypeVar("Module", bound=nn.Module)
Outputs = TypeVar("Outputs")

# What is computed in where it is safe (autocast); weights are float32.
PRECISIONS: dict[str, torch.dtype] = {
    "32-true": torch.float32, "tf32": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16,
}  # fmt: skip


def find_device(name: str) -> torch.device:
    """The device of that name.

    Args:
        name: ``"auto"``: the best there is; ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Raises:
        InputError: There is no such device here.
    """
    best = torch.accelerator.current_accelerator(check_available=True) if torch.accelerator.is_available() else None
    if name == "auto":
        return torch.device("cpu") if best is None else torch.device(best.type)
    try:
        device = torch.device({"gpu": "cuda"}.get(name, name))
    except RuntimeError:
        device = None
    here = {"cpu": 1} | ({} if best is None else {best.type: torch.accelerator.device_count()})
    if device is None or (device.index or 0) >= here.get(device.type, 0):
        raise InputError(
            expected=f"device=auto, or one that is here: {', '.join(here)}",
            found=f"device={name}",
            fix="Correct device, or install a PyTorch that is built for it.",
        )
    return device


def computing_dtype(precision: str) -> torch.dtype:
    """The type that a precision computes in.

    Args:
        precision: One of :data:`PRECISIONS`.

    Raises:
        InputError: It is none of them.
    """
    if precision not in PRECISIONS:
        raise InputError(
            expected=f"precision={' or '.join(PRECISIONS)}", found=f"precision={precision}", fix="Choose one of these."
        )
    return PRECISIONS[precision]


def allow_tf32(precision: str) -> None:
    """Let matrices be multiplied in TF32 (10 bits of mantissa, NVIDIA since Ampere) with ``"tf32"``, else not."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def place(module: Module, config: JobConfig) -> Module:
    """Put a network where its job computes, and note the precision for :func:`compute`; returns it."""
    dtype = computing_dtype(config.precision)
    allow_tf32(config.precision)
    module.autocast_dtype = None if dtype == torch.float32 else dtype  # type: ignore[assignment]
    return module.to(find_device(config.device))


def compute(function: Callable[..., Outputs], *arguments: Any, **inputs: Any) -> Outputs:
    """Call a network, or a method of one, where it was placed, with inputs from anywhere.

    There is a gradient in training mode alone (and where gradients are enabled).

    Args:
        function: The network or its method.
        *arguments: Tensors, or lists and dictionaries of them.
        **inputs: As ``arguments``.

    Returns:
        The outputs on the CPU; floating-point ones float32.
    """
    module: Any = function if isinstance(function, nn.Module) else function.__self__  # type: ignore[attr-defined]
    device = next(module.parameters()).device
    dtype: torch.dtype | None = getattr(module, "autocast_dtype", None)
    gradient = module.training and torch.is_grad_enabled()
    if device.type == "cpu" and dtype is None:
        with torch.set_grad_enabled(gradient):
            return function(*arguments, **inputs)

    def there(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return x.to(device, torch.float32 if x.dtype == torch.float64 else x.dtype)  # some devices have no float64

    def here(x: Any) -> Any:
        return (x.float() if x.is_floating_point() else x).cpu() if isinstance(x, Tensor) else x

    arguments, inputs = tree_map(there, (arguments, inputs))
    with torch.set_grad_enabled(gradient), torch.autocast(device.type, dtype, enabled=dtype is not None):
        return tree_map(here, function(*arguments, **inputs))
