"""Modalities: what can go into or come out of a model (name, dim, type, loss, where it lives in ``Data``)."""

from .modalities import MODALITY_REGISTRY as MODALITY_REGISTRY
from .modalities import DataType as DataType
from .modalities import ModalitySpec as ModalitySpec
from .modalities import get_modality_by_id as get_modality_by_id
from .modalities import register_modality as register_modality
from .modality_losses import CrossEntropyLoss as CrossEntropyLoss
from .modality_losses import InfoNCELoss as InfoNCELoss
from .modality_losses import MSELoss as MSELoss
from .modality_losses import PoissonNLLLoss as PoissonNLLLoss
