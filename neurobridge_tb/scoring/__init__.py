"""A model beside its baselines on the windows of recordings: rows of a table."""
