"""Models: layers put together, with tokenize(), forward(), save and load."""

from neurobridge_tb.models.behavior_decoder import BehaviorDecoder
from neurobridge_tb.models.image_aligner import ImageAligner
from neurobridge_tb.models.neurobridge import NeuroBridgeModel
from neurobridge_tb.models.neurohorizon import NeuroHorizonModel

__all__ = ["BehaviorDecoder", "ImageAligner", "NeuroBridgeModel", "NeuroHorizonModel"]
