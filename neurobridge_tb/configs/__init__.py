"""Hydra configs, shared by the `neurobridge` command and the examples."""
