"""Figures of the report, and what they share."""
