"""NeuroBridge for torch_brain: from spikes and multi-unit activity to representations and pictures."""

from . import alignment as alignment
from . import configs as configs
from . import datasets as datasets
from . import estimators as estimators
from . import generation as generation
from . import masking as masking
from . import metrics as metrics
from . import models as models
from . import nn as nn
from . import registry_ext as registry_ext
from . import simulation as simulation
from .models import ImageAligner as ImageAligner
from .models import NeuroBridgeModel as NeuroBridgeModel
from .models import NeuroHorizonModel as NeuroHorizonModel
from .registry_ext import MODALITY_REGISTRY as MODALITY_REGISTRY
from .registry_ext import DataType as DataType
from .registry_ext import ModalitySpec as ModalitySpec
from .registry_ext import get_modality_by_id as get_modality_by_id
from .registry_ext import register_modality as register_modality

__version__: str
