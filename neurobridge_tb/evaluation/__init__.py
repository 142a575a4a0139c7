"""Metrics (pure functions), baselines, probes, figures and the HTML report."""
