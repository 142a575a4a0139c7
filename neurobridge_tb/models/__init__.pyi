"""Models: layers put together, with tokenize(), forward(), save and load."""

from .behavior_decoder import BehaviorDecoder as BehaviorDecoder
from .image_aligner import ImageAligner as ImageAligner
from .neurobridge import NeuroBridgeModel as NeuroBridgeModel
from .neurohorizon import NeuroHorizonModel as NeuroHorizonModel
