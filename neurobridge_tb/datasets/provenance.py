"""Where recordings come from."""

from neurobridge_tb._upstream import Dataset

PSEUDO_POPULATION = "pseudo-population"


def is_simulated(dataset: Dataset) -> bool:
    """Whether any recording was simulated (its brainset's ``origin_version`` says so)."""
    return any(dataset.get_recording(r).brainset.origin_version == "simulated" for r in dataset.recording_ids)


def is_pseudo_population(dataset: Dataset) -> bool:
    """Whether the units of any recording were recorded apart, so that their trials have no noise in common."""
    return any(dataset.get_recording(r).brainset.origin_version == PSEUDO_POPULATION for r in dataset.recording_ids)
