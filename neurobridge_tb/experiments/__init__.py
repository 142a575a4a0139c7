"""Experiments: recipes that expand to jobs, launchers that run them, tables and curves over their runs."""
