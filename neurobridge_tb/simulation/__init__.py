"""A virtual ventral stream that writes raw files in the published TVSD layout."""

from neurobridge_tb.simulation.allen_nwb import simulate_allen_session
from neurobridge_tb.simulation.ibl_alf import simulate_ibl_sessions
from neurobridge_tb.simulation.procedural import concept_names, draw_image, write_procedural_images
from neurobridge_tb.simulation.simulate import simulate_tvsd
from neurobridge_tb.simulation.ventral_stream import VentralStream

__all__ = [
    "VentralStream",
    "concept_names",
    "draw_image",
    "simulate_allen_session",
    "simulate_ibl_sessions",
    "simulate_tvsd",
    "write_procedural_images",
]
