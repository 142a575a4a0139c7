"""Folders of trained decoders: written whole, and only ever in the place of another one; and read."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import check_folder, read_json, write_folder, write_json
from neurobridge_tb.hub import CARD

Network = TypeVar("Network", bound=nn.Module)
_FILES = ("config.json", "model.safetensors", "ip_adapter.safetensors", "loss.csv", CARD)


@contextmanager
def write_decoder(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder to write a decoder into; on success it takes the place of ``folder``.

    Raises:
        InputError: See :func:`check_decoder_folder`.
    """
    with write_folder(folder, _FILES, is_ours=_is_ours, kept=[CARD]) as part:
        yield part


def save_network(folder: str | Path, backend: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` and ``config.json``, aside and renamed.

    Args:
        folder: Folder to make; a decoder that stands there is replaced.
        backend: Whose network it is.
        tensors: The network's.
        config: What to note beside the format.

    Raises:
        InputError: See :func:`check_decoder_folder`.
    """
    from safetensors.torch import save

    with write_decoder(folder) as aside:
        state = {name: value.contiguous().cpu() for name, value in tensors.items()}
        (aside / "model.safetensors").write_bytes(save(state))
        write_json(aside / "config.json", {"format": _format(backend), **config})


def load_network(
    folder: str | Path, backend: str, build: Callable[[dict[str, Any]], Network]
) -> tuple[Network, dict[str, Any]]:
    """Read what :func:`save_network` wrote.

    Args:
        folder: Such a folder.
        backend: Whose network it is.
        build: Makes the network from the config.

    Returns:
        The network, in float32, and the config.

    Raises:
        InputError: There is no such network in the folder.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("format") != _format(backend):
            raise ValueError(f"format {config.get('format')!r}")
        network = build(config)
        state = load_file(folder / "model.safetensors")
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except Exception as error:  # json, safetensors and torch each raise their own kinds
        raise InputError(
            expected=f"a decoder of backend {backend} (config.json of format {_format(backend)!r}, model.safetensors)",
            found=f"{folder}: {str(error)[:200]}",
            fix=f"Name a folder that `neurobridge train-decoder backend={backend}` wrote.",
        ) from error
    return network, config


def trained_on(folder: str | Path) -> set[str]:
    """Fingerprints of the images that a decoder was trained on, see :meth:`StimulusImages.fingerprints`.

    Empty where its folder does not tell.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        return set()
    training = read_json(path).get("training")
    return set(training.get("image_files", ())) if isinstance(training, dict) else set()


def check_decoder_folder(folder: str | Path) -> None:
    """Refuse a folder to which no decoder can be saved without losing what is there. Call it before training.

    Raises:
        InputError: The folder holds anything but a decoder of NeuroBridge, or is the working directory.
    """
    check_folder(folder, _FILES, is_ours=_is_ours)


def _is_ours(folder: Path) -> bool:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["format"].startswith("neurobridge ")


def _format(backend: str) -> str:
    return f"neurobridge {backend} 1"
