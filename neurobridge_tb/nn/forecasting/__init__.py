"""Layers of the forecaster."""
