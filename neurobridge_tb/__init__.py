"""NeuroBridge for torch_brain: from spikes and multi-unit activity to representations and pictures."""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

try:
    __version__ = version("neurobridge-tb")
except PackageNotFoundError:  # sources that were never installed
    __version__ = "0.0.0+unknown"

# The public names stand in __init__.pyi; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
