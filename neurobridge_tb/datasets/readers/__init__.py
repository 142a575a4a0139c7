"""Recordings from the files that labs have: each function reads one kind of source and returns a recording."""

from neurobridge_tb.datasets.readers.alf import read_alf
from neurobridge_tb.datasets.readers.choices import Choices
from neurobridge_tb.datasets.readers.matlab import read_matlab
from neurobridge_tb.datasets.readers.neural_latents import read_mc_maze
from neurobridge_tb.datasets.readers.notes import Notes
from neurobridge_tb.datasets.readers.nwb import read_nwb
from neurobridge_tb.datasets.readers.phy import read_phy
from neurobridge_tb.datasets.readers.spikeinterface import read_spikeinterface
from neurobridge_tb.datasets.splits import SplitPlan

__all__ = [
    "Choices",
    "Notes",
    "SplitPlan",
    "read_alf",
    "read_matlab",
    "read_mc_maze",
    "read_nwb",
    "read_phy",
    "read_spikeinterface",
]
