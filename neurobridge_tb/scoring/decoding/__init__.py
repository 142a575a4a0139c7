"""Decoding of labels and series: splits, decoders, scores."""
