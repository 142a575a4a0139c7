"""Recordings as torch_brain Datasets, and the images that were shown."""

from neurobridge_tb.datasets.allen import AllenVisualCodingNeuropixels2019
from neurobridge_tb.datasets.binned import BinnedRecordings
from neurobridge_tb.datasets.builder import build_recording, save_recording
from neurobridge_tb.datasets.ibl import IblBrainWideMap2025
from neurobridge_tb.datasets.provenance import is_simulated
from neurobridge_tb.datasets.stimuli import StimulusImages
from neurobridge_tb.datasets.tvsd import Tvsd

__all__ = [
    "AllenVisualCodingNeuropixels2019",
    "BinnedRecordings",
    "IblBrainWideMap2025",
    "StimulusImages",
    "Tvsd",
    "build_recording",
    "is_simulated",
    "save_recording",
]
