"""Masking schemes, and the transform that draws one for a window."""

from .schemes import SCHEMES as SCHEMES
from .schemes import Mask as Mask
from .schemes import draw_mask as draw_mask
from .tokenizer import MaskedTokenizer as MaskedTokenizer
