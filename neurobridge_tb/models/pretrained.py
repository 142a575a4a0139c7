"""Saving and loading models: ``model.safetensors`` (weights) and ``config.json`` (settings and vocabularies)."""

import hashlib
import json
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import check_folder, write_folder
from neurobridge_tb.hub import CARD, model_folder, push_model
from neurobridge_tb.models.checkpoints import read_checkpoint

_VOCAB, _CHECKSUM = ".vocab", "sha256"
_FILES = ("config.json", "model.safetensors", "factors.h5", CARD)


class PretrainedModel(nn.Module):
    """Mixin of models that can be saved and loaded. A subclass sets ``self.config``, its constructor's arguments."""

    config: dict[str, Any]

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``, which holds them alone.

        Raises:
            InputError: The folder holds anything but a saved model; see :func:`check_model_folder`.
        """
        state = self.state_dict()
        vocabs = {k: list(v) for k, v in state.items() if k.endswith(_VOCAB)}
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.items() if not k.endswith(_VOCAB)}
        config = {"class": type(self).__name__, "config": self.config, "vocabs": vocabs}
        with write_folder(folder, _FILES, is_ours=_is_ours, kept=[CARD]) as aside:
            content = save(tensors, metadata={_CHECKSUM: _checksum(tensors)})
            (aside / "model.safetensors").write_bytes(content)  # save_file's own errors are none of the system's
            (aside / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        return Path(folder)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> Self:
        """Load a model from a folder, from the package, or from the Hugging Face hub (kept in its cache).

        Args:
            name: What :meth:`load_pretrained` takes, a name that ``neurobridge models`` lists, or
                ``"organisation/model"``.
            revision: Branch, tag or commit on the hub; default: the newest.

        Raises:
            InputError: There is no such model, or it is another class's.
        """
        return cls.load_pretrained(model_folder(name, revision=revision))

    def push_to_hub(self, repo: str, *, card: str, private: bool = False) -> str:
        """Upload this model and its model card to the Hugging Face hub.

        Args:
            repo: ``"organisation/model"``; made where there is none.
            card: Text of the model card, e.g. of :func:`neurobridge_tb.report.model_card.model_card`.
            private: Whether a new repository can be seen by its organisation alone.

        Returns:
            Address of the commit.

        Raises:
            InputError: The hub refuses, or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as aside:
            return push_model(self.save_pretrained(Path(aside) / "model"), repo, card=card, private=private)

    @classmethod
    def load_pretrained(cls, path: str | Path) -> Self:
        """Load a model from a folder written by :meth:`save_pretrained`, or from a Lightning checkpoint.

        Args:
            path: Such a folder, a checkpoint of a ``neurobridge`` run, or one of a training script in POYO's manner,
                whose hyperparameters hold the model's config (``_target_`` and arguments) as ``model``.

        Raises:
            InputError: There is no such model, it is another class's, or its tensors do not fit.
        """
        path = Path(path)
        name, config, state = _read_run(path, cls.__name__) if path.is_file() else _read_folder(path, cls.__name__)
        if name != cls.__name__:
            raise InputError(
                expected=f"a saved {cls.__name__}",
                found=f"a {name} in {path}",
                fix=f"Load it with {name}.load_pretrained, or name another folder.",
            )
        cls._refuse_outdated(path, state)
        try:
            model = cls(**_completed(config))
            model.load_state_dict(state)
        except InputError:
            raise
        except Exception as error:  # a damaged config can hold anything, and each layer refuses it in its own way
            raise InputError(
                expected=f"weights that fit the {cls.__name__} described in its config",
                found=f"{path}: {(str(error).splitlines() or [type(error).__name__])[-1].strip()}",
                fix="The weights and config.json are of different models; take both from the same run.",
            ) from error
        return model

    @classmethod
    def _refuse_outdated(cls, path: Path, state: Mapping[str, Any]) -> None:
        """Refuse tensors of a version whose network was another one; by default every version's will do."""


def saved_class(path: str | Path) -> str:
    """Name of the class of a saved model.

    Args:
        path: As :meth:`PretrainedModel.load_pretrained` takes it.

    Raises:
        InputError: There is no saved model.
    """
    path = Path(path)
    return (_read_run(path, "model") if path.is_file() else _read_folder(path, "model"))[0]


def check_model_folder(folder: str | Path) -> None:
    """Refuse a folder to which no model can be saved without losing what is there. Call it before training.

    Raises:
        InputError: The folder holds anything but a model of NeuroBridge, or is the working directory.
    """
    check_folder(folder, _FILES, is_ours=_is_ours)


def _is_ours(folder: Path) -> bool:
    return "vocabs" in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names; files of safetensors have no checksum of their own."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model, or of the encoder in it, from before there were factor models."""
    if "dim_population" in config:
        return {"num_factors": 0} | config
    return config | {"encoder": _completed(config["encoder"])} if isinstance(config.get("encoder"), dict) else config


def _read_folder(folder: Path, class_name: str) -> tuple[str, dict, dict]:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        state: dict[str, Any] = dict(load_file(folder / "model.safetensors"))
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            noted = (file.metadata() or {}).get(_CHECKSUM)  # older versions and other programs note none
        if noted not in (None, _checksum(state)):
            raise ValueError("the weights in model.safetensors are damaged: they are not those that were saved")
        name, config, vocabs = content["class"], content["config"], content["vocabs"]
        state |= {k: OrderedDict((word, i) for i, word in enumerate(words)) for k, words in vocabs.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise InputError(
            expected=f"a folder with config.json and model.safetensors of a {class_name}",
            found=f"{folder}: {type(error).__name__}: {error}",
            fix="Name the `model` folder of a finished run, or run the training again.",
        ) from error
    return name, config, state


def _read_run(path: Path, class_name: str) -> tuple[str, dict, dict]:
    """Class, config and state in a Lightning checkpoint of ours, or of a script that saves ``cfg.model``, as POYO's.

    The class of a script that saved the model's arguments alone is the one asked for.
    """
    try:
        state, settings = read_checkpoint(path)
        saved = settings["model"]
        if "class" in saved:
            return saved["class"], saved["config"], state
        config = {k: v for k, v in saved.items() if k != "_target_"}
        if "readout.weight" in state:  # scripts name it when they make the model, not in the config
            config.setdefault("dim_out", len(state["readout.weight"]))
        return saved.get("_target_", class_name).rpartition(".")[-1], config, state
    except Exception as error:  # torch.load raises a different type for each way in which a file can be bad
        raise InputError(
            expected="a checkpoint written by a `neurobridge` run, or by Lightning with hyperparameters `model`",
            found=f"{path}: {type(error).__name__}: {str(error).partition('. ')[0]}",
            fix="Name a folder with config.json and model.safetensors, or a file in a run's checkpoints folder.",
        ) from error
