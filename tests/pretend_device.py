"""A pretend accelerator: tensors that say they lie on a device, refuse to meet CPU tensors, and log every wait.

Everything is computed on the CPU. What would make a program wait for a real device (reading a number, looking for where
a mask is true, copying to the CPU) is noted in :data:`WAITS`. The device is called ``mps``: as on that one, there is no
float64.
"""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_map

DEVICE = torch.device("mps", 0)
WAITS: list[str] = []  # "file:line operation" of each, in order

_ASK = {  # operations that read values to know a number or a shape
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "unique_consecutive",
    "is_nonzero", "item", "masked_scatter", "bincount", "histc",
}  # fmt: skip


class Mismatch(RuntimeError):
    """A tensor of the CPU met one of the device, or float64 came to the device."""


class DeviceTensor(torch.Tensor):
    """A tensor of the pretend device; ``value`` holds what it is on the CPU."""

    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor) -> "DeviceTensor":
        if value.dtype in (torch.float64, torch.complex128):
            raise Mismatch(f"{value.dtype} {tuple(value.shape)} came to a device that has none")
        wrapped = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), storage_offset=value.storage_offset(), dtype=value.dtype,
            device="meta", requires_grad=False,
        )  # fmt: skip
        wrapped.value = value
        return wrapped

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with PretendDevice():
            return func(*args, **(kwargs or {}))

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"


class PretendDevice(TorchDispatchMode):
    """While active, tensors can be made on the pretend device and moved to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.__name__.split(".")[0]
        on_device = tree_any(lambda x: isinstance(x, DeviceTensor), (args, kwargs))
        if "device" in kwargs and kwargs["device"] is not None:
            target: bool | None = torch.device(kwargs["device"]).type in (DEVICE.type, "meta")
            kwargs["device"] = torch.device("cpu")
        else:
            target = None
        if not on_device and not target:
            return func(*args, **kwargs)
        if on_device:
            moves = name in ("_to_copy", "copy_")
            if not moves:
                _check_no_cpu_tensor(name, args, kwargs)
            if (target is False and name == "_to_copy") or (name == "copy_" and not isinstance(args[0], DeviceTensor)):
                _note(f"{name} to the CPU")
            elif name in _ASK or (name in ("index", "index_put", "index_put_", "_index_put_impl_") and _has_mask(args)):
                _note(name)
            elif name == "repeat_interleave" and kwargs.get("output_size") is None:
                _note(name)
        if func.namespace == "neurobridge_tb":  # our own operators run their code for accelerators
            with self:
                return _implementation(func)(*args, **kwargs)
        result = func(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))
        if target is False and name == "_to_copy":
            return result
        if func._schema.is_mutable and isinstance(args[0], DeviceTensor) and isinstance(result, Tensor):
            if name in ("t_", "transpose_", "squeeze_", "unsqueeze_"):  # the shape changes in place
                with torch._C._DisableTorchDispatch():
                    func(*args, **kwargs)
            return args[0]
        if func._schema.is_mutable and result is None:
            return None
        if func._schema.is_mutable and "out" in kwargs and kwargs["out"] is not None:
            return (args, kwargs)[1]["out"]
        return tree_map(_wrap, result)


def _implementation(func: Any) -> Any:
    from torch._library.custom_ops import OPDEFS

    return OPDEFS[func._schema.name]._init_fn


def _unwrap(x: Any) -> Any:
    return x.value if isinstance(x, DeviceTensor) else x


def _wrap(x: Any) -> Any:
    return DeviceTensor(x) if isinstance(x, Tensor) and not isinstance(x, DeviceTensor) else x


def _has_mask(args: Any) -> bool:
    return tree_any(lambda x: isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8), args[1])


def _check_no_cpu_tensor(name: str, args: Any, kwargs: Any) -> None:
    """A CPU tensor of no dimension is taken for a number, as on real devices."""

    def is_foreign(x: Any) -> bool:
        return isinstance(x, Tensor) and not isinstance(x, DeviceTensor) and x.ndim > 0

    if tree_any(is_foreign, (args, kwargs)):
        raise Mismatch(f"{name}: a tensor of the CPU and one of the device")


def _note(what: str) -> None:
    frames = [f for f in traceback.extract_stack() if "site-packages" not in f.filename and f.filename != __file__]
    where = frames[-1]
    WAITS.append(f"{Path(where.filename).name}:{where.lineno} {what}")


@contextlib.contextmanager
def pretend_device() -> Iterator[list[str]]:
    """The pretend device, and what has been waited for since."""
    WAITS.clear()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) comes through the dispatcher too
    plain_to, plain_tensor = nn.Module.to, torch.tensor

    def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        there = any(isinstance(p, DeviceTensor) for p in module.parameters())
        if device is not None and device.type == DEVICE.type:
            return to_device(module if there or dtype is None else plain_to(module, dtype))
        assert not there or device is None, "back to the CPU"
        return module if there else plain_to(module, *args, **kwargs)

    def tensor(data: Any, **kwargs: Any) -> Tensor:  # numbers of the device are read one by one
        return plain_tensor(tree_map(lambda x: x.item() if isinstance(x, DeviceTensor) else x, data), **kwargs)

    nn.Module.to, torch.tensor = to, tensor  # type: ignore[method-assign, assignment]
    try:
        with PretendDevice():
            yield WAITS
    finally:
        nn.Module.to, torch.tensor = plain_to, plain_tensor  # type: ignore[method-assign]
        torch._C._set_only_lift_cpu_tensors(False)


def to_device(x: Any) -> Any:
    """A module's parameters and buffers, or the tensors of a batch, on the device."""
    if not isinstance(x, nn.Module):
        return tree_map(_wrap, x)
    moved: dict[int, Any] = {}
    for module in x.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and not isinstance(parameter, DeviceTensor):
                if id(parameter) not in moved:
                    moved[id(parameter)] = nn.Parameter(_wrap(parameter.detach().clone()), parameter.requires_grad)
                setattr(module, name, moved[id(parameter)])
        for name, buffer in module._buffers.items():
            if buffer is not None and not isinstance(buffer, DeviceTensor):
                module._buffers[name] = _wrap(buffer.clone())
    return x
