"""Modalities: what can go into or come out of a model (name, dim, type, loss, where it lives in ``Data``)."""

from neurobridge_tb.registry_ext import modalities as _modalities  # noqa: F401  (registers ours)
from neurobridge_tb.registry_ext.modality_losses import (
    CrossEntropyLoss,
    InfoNCELoss,
    MSELoss,
    PoissonNLLLoss,
)
from neurobridge_tb.registry_ext.registry import (
    MODALITY_REGISTRY,
    DataType,
    ModalitySpec,
    get_modality_by_id,
    register_modality,
)

__all__ = [
    "MODALITY_REGISTRY",
    "CrossEntropyLoss",
    "DataType",
    "InfoNCELoss",
    "MSELoss",
    "ModalitySpec",
    "PoissonNLLLoss",
    "get_modality_by_id",
    "register_modality",
]
