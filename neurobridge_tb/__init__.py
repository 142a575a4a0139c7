"""NeuroBridge for torch_brain: from spikes and multi-unit activity to representations and pictures."""

from neurobridge_tb.models import ImageAligner, NeuroBridgeModel, NeuroHorizonModel
from neurobridge_tb.registry_ext import (
    MODALITY_REGISTRY,
    DataType,
    ModalitySpec,
    get_modality_by_id,
    register_modality,
)

__version__ = "0.1.0"

__all__ = [
    "MODALITY_REGISTRY",
    "DataType",
    "ImageAligner",
    "ModalitySpec",
    "NeuroBridgeModel",
    "NeuroHorizonModel",
    "get_modality_by_id",
    "register_modality",
]
