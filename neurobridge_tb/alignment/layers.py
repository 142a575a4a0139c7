"""Layers of an image network, by name or by share of its depth, pooled or on a small grid of places.

A layer is written ``"blocks.3"``, ``"0.5"`` (half of the network's blocks have passed) or ``"final"`` (the network's
own embedding); ``"blocks.3@3x3"`` averages its map onto 3 x 3 places instead of over the whole picture.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from torch import Tensor, nn
from torch.nn import functional as F

from neurobridge_tb.errors import InputError

FINAL = "final"


@dataclass(frozen=True)
class Layer:
    """A layer of a network and the grid of places that its output is averaged onto.

    Attributes:
        module: Name of the submodule, or ``"final"``.
        grid: Places on a side; 1: pooled over the picture.
    """

    module: str
    grid: int = 1

    def __str__(self) -> str:
        return self.module if self.grid == 1 else f"{self.module}@{self.grid}x{self.grid}"


def resolve_layers(network: nn.Module, specs: Sequence[str], *, name: str) -> list[Layer]:
    """The layers that ``specs`` name.

    Args:
        network: Image network.
        specs: As in the module's docstring; ``"final"`` has no grid.
        name: What the network is called in errors.

    Raises:
        InputError: A layer that does not exist, a grid that cannot be, or one layer twice.
    """
    layers = [_resolve(network, str(spec).strip(), name) for spec in specs]
    if not layers or len(set(layers)) < len(layers):
        raise InputError(
            expected="one or more layers, each once",
            found=", ".join(map(str, layers)) or "none",
            fix=f"Name layers of {name}; a share of the depth may name the same layer as its module name.",
        )
    return layers


def blocks(network: nn.Module) -> list[str]:
    """Names of the network's blocks in order: the members of its outermost sequences of composite modules."""
    found: list[str] = []

    def walk(module: nn.Module, prefix: str) -> None:
        for child_name, child in module.named_children():
            path = f"{prefix}{child_name}"
            members = list(child.named_children())
            if isinstance(child, nn.Sequential | nn.ModuleList) and any(len(list(m.children())) for _, m in members):
                found.extend(f"{path}.{member}" for member, _ in members)
            elif members:
                walk(child, f"{path}.")

    walk(network, "")
    return found


def _resolve(network: nn.Module, spec: str, name: str) -> Layer:
    match = re.fullmatch(r"(.+?)(?:@(\d+)x(\d+))?", spec)
    module, rows, columns = match.groups() if match else (spec, None, None)
    grid = 1 if rows is None else int(rows)
    if "@" in module or (rows or "1") != (columns or "1") or grid < 1 or (module == FINAL and grid > 1):
        raise InputError(
            expected="a layer such as 'blocks.3', '0.5', 'blocks.3@3x3' or 'final' (which has no places)",
            found=repr(spec),
            fix="Write as many rows as columns of places, e.g. 'blocks.3@2x2'.",
        )
    if re.fullmatch(r"\d*\.?\d+", module):
        return Layer(_at_share(network, float(module), name), grid)
    modules = [m for m, _ in network.named_modules() if m]
    if module != FINAL and module not in modules:
        near = get_close_matches(module, modules, n=5, cutoff=0.0)
        raise InputError(
            expected=f"a layer of {name}: {', '.join(blocks(network) or modules[:20])}, {FINAL}",
            found=repr(module),
            fix=f"The nearest names are {', '.join(near)}; a share of the depth, such as 0.5, does as well.",
        )
    return Layer(module, grid)


def _at_share(network: nn.Module, share: float, name: str) -> str:
    of_network = blocks(network)
    if not 0 < share <= 1 or not of_network:
        raise InputError(
            expected="a share of the network's depth above 0 and at most 1, of a network made of blocks",
            found=f"{share:g} of {name}, which has {len(of_network)} blocks",
            fix="0.5 is the block at which half of the network has passed; or name a layer.",
        )
    return of_network[math.ceil(share * len(of_network)) - 1]


def pool(values: Tensor, grid: int | None, layer: str) -> Tensor:
    """A layer's output on a grid of places.

    Args:
        values: ``(n, d)``, tokens ``(n, tokens, d)``, or maps ``(n, channels, rows, columns)`` or, of equal sides,
            ``(n, rows, columns, channels)``.
        grid: Places on a side; None: as it is.
        layer: Its name, for errors.

    Returns:
        ``(n, channels)`` for 1, else ``(n, channels, grid, grid)``; vectors and None leave ``values`` as they are.

    Raises:
        InputError: The output has no such places.
    """
    if grid is None or (values.ndim == 2 and grid == 1):
        return values
    if values.ndim == 3 and grid == 1:
        return values.mean(1)
    if values.ndim == 3:
        side = math.isqrt(values.shape[1])  # what is beyond a square are class and register tokens, which come first
        values = values[:, values.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))
    if values.ndim == 4:
        if values.shape[1] == values.shape[2] != values.shape[3]:
            values = values.permute(0, 3, 1, 2)
        if grid <= min(values.shape[2:]):
            pooled = F.adaptive_avg_pool2d(values, grid)
            return pooled.flatten(1) if grid == 1 else pooled
    raise InputError(
        expected=f"a layer with at least {grid} x {grid} places",
        found=f"{layer} with output of shape {tuple(values.shape)}",
        fix="Use fewer places, pool over the picture, or take another layer or a larger image size.",
    )


def on_places(outputs: Mapping[str, Tensor], layer: Layer) -> Tensor:
    """A layer's output, of those of its network's modules, as flat vectors ``(n, channels * grid * grid)``."""
    return pool(outputs[layer.module], layer.grid, str(layer)).flatten(1)
