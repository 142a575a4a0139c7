"""The `neurobridge` command."""
