"""Masking schemes, and the transform that draws one for a window."""

from neurobridge_tb.masking.schemes import SCHEMES, Mask, draw_mask
from neurobridge_tb.masking.tokenizer import MaskedTokenizer

__all__ = ["SCHEMES", "Mask", "MaskedTokenizer", "draw_mask"]
