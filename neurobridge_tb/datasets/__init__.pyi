"""Recordings as torch_brain Datasets, and the images that were shown."""

from .allen import AllenVisualCodingNeuropixels2019 as AllenVisualCodingNeuropixels2019
from .binned import BinnedRecordings as BinnedRecordings
from .brain_wide_bench import IblBrainWideBench2026 as IblBrainWideBench2026
from .builder import build_recording as build_recording
from .builder import save_recording as save_recording
from .ibl import IblBrainWideMap2025 as IblBrainWideMap2025
from .provenance import is_simulated as is_simulated
from .stimuli import StimulusImages as StimulusImages
from .tvsd import Tvsd as Tvsd
