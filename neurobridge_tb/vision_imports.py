"""Make ``import torchvision`` work beside a CPU-only torch.

The package index's torchvision is a CUDA build. Its compiled operators cannot be loaded next to a
CPU-only torch, and its import then stops at ``torch.library.register_fake("torchvision::nms")``,
because the operator has no schema. timm, open_clip and diffusers all import torchvision, but need
its Python half only, and for that the schemas are enough.
"""

import importlib
import sys

import torch

from neurobridge_tb.errors import require

_MISSING_OPERATOR = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # schemas live as long as this object


def prepare_torchvision() -> None:
    """Import torchvision, declaring its operator schemas first if that is what its import lacks.

    Call it before any import of torchvision, timm, open_clip or diffusers. Where the import works,
    nothing is changed.

    Raises:
        MissingExtraError: torchvision is not installed.
        RuntimeError: torchvision's import fails for any other reason (its own error, unchanged).
    """
    global _library
    try:
        require("torchvision", extra="vision")
    except RuntimeError as error:
        if str(error) != _MISSING_OPERATOR:
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
        importlib.import_module("torchvision")
