"""Loading diffusers pipelines: from a local folder or the hub, with one clear error where neither works."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from neurobridge_tb.errors import InputError, first_line, require
from neurobridge_tb.vision_imports import prepare_torchvision

DTYPES = ("float32", "bfloat16", "float16")
_HUB_TIMEOUT = 5.0  # seconds until a hub that does not answer counts as unreachable


def load_pipeline(
    kind: str,
    weights: str | Path | None,
    *,
    suggestion: str,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    **options: Any,
) -> Any:
    """Load a pipeline in inference mode; weights are read as safetensors only.

    Args:
        kind: Class of diffusers, e.g. ``"StableDiffusionPipeline"``.
        weights: Folder that ``save_pretrained`` of such a pipeline wrote, or an id of the Hugging Face hub; without
            network, what the hub gave before.
        suggestion: A hub id for the message where ``weights`` is None.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device: Where it runs.
        **options: Go to ``from_pretrained``.

    Raises:
        InputError: No weights named, no pipeline in the folder, a hub that cannot be reached or does not know the id,
            or weights that do not fit.
        MissingExtraError: diffusers or transformers is not installed.
    """
    if weights is None:
        raise InputError(
            expected=f"weights for a {kind}",
            found="none: they are large, and do not come with this package",
            fix=f"Name a hub id, e.g. {suggestion}, or the local folder of such a pipeline (with model_index.json).",
        )
    prepare_torchvision()
    require("transformers", extra="vision")
    factory = getattr(require("diffusers", extra="vision"), kind)
    wanted = as_dtype(dtype)
    try:
        with quiet():
            pipeline = factory.from_pretrained(_locate(weights), local_files_only=True, use_safetensors=True, **options)
    except InputError:
        raise
    except Exception as error:  # each library below raises its own kinds
        raise InputError(
            expected=f"the weights of a {kind} in {weights}, as safetensors",
            found=first_line(error)[:300],
            fix=f"Name the folder of a whole pipeline (it holds model_index.json), or a hub id, e.g. {suggestion}.",
        ) from error
    if type(pipeline).__name__ != kind:
        raise InputError(
            expected=f"a {kind}",
            found=f"a {type(pipeline).__name__} in {weights}",
            fix=f"Name weights of that kind, e.g. {suggestion}.",
        )
    pipeline.set_progress_bar_config(disable=True)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    with quiet():
        return pipeline.to(device, wanted)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers and transformers from hints and progress bars while they load; errors are raised as ever."""
    logs = [import_module(f"{library}.utils.logging") for library in ("diffusers", "transformers")]
    before = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.set_verbosity(level)
            log.enable_progress_bar()


def as_dtype(name: str) -> torch.dtype:
    """The floating-point type of that name.

    Raises:
        InputError: Not one of ``DTYPES``.
    """
    if name not in DTYPES:
        raise InputError(expected=f"a dtype among {', '.join(DTYPES)}", found=repr(name), fix="Correct `dtype`.")
    return getattr(torch, name)


def _locate(weights: str | Path) -> str:
    """The folder of the weights: a local one, a download, or without network the hub's cached copy."""
    if Path(weights).expanduser().is_dir():
        return str(Path(weights).expanduser())
    name = str(weights)
    if name.count("/") != 1 or name[0] in "./~\\":
        raise InputError(
            expected="a folder, or a hub id of the form owner/name",
            found=f"{name}, which is no folder here",
            fix="Correct the path, or name a hub id.",
        )
    hub = require("huggingface_hub", extra="vision")
    try:
        files = hub.HfApi().model_info(name, timeout=_HUB_TIMEOUT).siblings or []
        return hub.snapshot_download(name, allow_patterns=_plain_weights([file.rfilename for file in files]))
    except Exception as error:  # httpx, requests and the hub each raise their own kinds
        try:
            return hub.snapshot_download(name, local_files_only=True)
        except Exception:
            raise InputError(
                expected=f"the model {name} on the Hugging Face hub, or in its cache from an earlier download",
                found=f"neither: {type(error).__name__} {first_line(error)[:200]}",
                fix="Check the id and the network (and HF_TOKEN where the model is gated), or download the pipeline "
                "elsewhere and name its folder.",
            ) from error


def _plain_weights(files: list[str]) -> list[str]:
    """Configs, and the weights without a variant (``….fp16.safetensors`` and the like) of the pipeline's parts."""
    parts = [file for file in files if file.endswith(".safetensors") and file.count("/") == 1]
    parts = [file for file in parts if not file.startswith("safety_checker/")]
    plain = [file for file in parts if not any(f".{variant}." in file for variant in ("fp16", "bf16", "non_ema"))]
    return [file for file in files if file.endswith((".json", ".txt", ".model"))] + plain
