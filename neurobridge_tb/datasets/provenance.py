"""Where recordings come from."""

from neurobridge_tb._upstream import Dataset


def is_simulated(dataset: Dataset) -> bool:
    """Whether any recording was simulated (its brainset's ``origin_version`` says so)."""
    return any(dataset.get_recording(r).brainset.origin_version == "simulated" for r in dataset.recording_ids)
