"""Windows of recordings, as models and baselines read them."""
