"""A virtual ventral stream that writes raw files in the published TVSD layout."""

from .allen_nwb import simulate_allen_session as simulate_allen_session
from .ibl_alf import simulate_ibl_sessions as simulate_ibl_sessions
from .procedural import concept_names as concept_names
from .procedural import draw_image as draw_image
from .procedural import write_procedural_images as write_procedural_images
from .simulate import simulate_tvsd as simulate_tvsd
from .ventral_stream import VentralStream as VentralStream
