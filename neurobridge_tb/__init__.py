"""NeuroBridge for torch_brain: from spikes and multi-unit activity to representations and pictures."""

__version__ = "0.1.0"
