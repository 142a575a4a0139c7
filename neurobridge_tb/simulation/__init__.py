"""A virtual ventral stream that writes raw files in the published TVSD layout."""

from neurobridge_tb.simulation.procedural import concept_names, draw_image, write_procedural_images
from neurobridge_tb.simulation.simulate import simulate_tvsd
from neurobridge_tb.simulation.ventral_stream import VentralStream

__all__ = ["VentralStream", "concept_names", "draw_image", "simulate_tvsd", "write_procedural_images"]
