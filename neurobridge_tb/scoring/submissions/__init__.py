"""Predictions for public benchmarks, and their scores."""
