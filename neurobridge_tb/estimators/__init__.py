"""Closed forms and small estimators on arrays."""
