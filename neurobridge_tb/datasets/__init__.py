"""Recordings as torch_brain Datasets, and the images that were shown."""

from neurobridge_tb.datasets.binned import BinnedRecordings
from neurobridge_tb.datasets.builder import build_recording, save_recording
from neurobridge_tb.datasets.provenance import is_simulated
from neurobridge_tb.datasets.stimuli import StimulusImages
from neurobridge_tb.datasets.tvsd import Tvsd

__all__ = ["BinnedRecordings", "StimulusImages", "Tvsd", "build_recording", "is_simulated", "save_recording"]
