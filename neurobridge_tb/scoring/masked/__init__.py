"""Scores of what was hidden: tables, baselines, single tasks."""
