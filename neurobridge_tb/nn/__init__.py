"""Layers that upstream lacks."""
