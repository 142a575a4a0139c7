"""Closed forms and baselines on arrays."""
