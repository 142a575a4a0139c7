"""Modalities: what can go into or come out of a model (name, dim, type, loss, where it lives in ``Data``)."""

import lazy_loader

# The public names stand in __init__.pyi; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
