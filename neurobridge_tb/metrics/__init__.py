"""Metrics: pure functions of predictions and targets."""
