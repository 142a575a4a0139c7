"""Models by name: a folder, a model that comes with the package, or one on the Hugging Face hub."""

from pathlib import Path
from typing import Any

import yaml

from neurobridge_tb.errors import InputError, first_line

CARD = "README.md"
_FILES = ("config.json", "model.safetensors", CARD)


def shipped_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name; each holds weights, config and model card."""
    return {card.parent.name: card.parent for card in sorted(Path(__file__).parent.glob(f"*/weights/*/{CARD}"))}


def read_card(folder: Path) -> dict[str, Any]:
    """The settings at the head of a folder's model card (licence, tags, …); empty where there is none."""
    path = folder / CARD
    parts = path.read_text(encoding="utf-8").split("---\n", 2) if path.is_file() else []
    return yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else {}


def model_folder(name: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a model on this machine; one on the hub is downloaded into the cache first.

    Only ``config.json``, ``model.safetensors`` and the model card are fetched, all of one revision: no code and no
    pickle. Without a network, what was downloaded before is used.

    Args:
        name: A folder or checkpoint file, a name of :func:`shipped_models`, or ``"organisation/model"``. Hub,
            cache and token are set by ``huggingface_hub``'s own variables (``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``).
        revision: Branch, tag or commit on the hub; default: the newest.

    Raises:
        InputError: There is no such model, or it is neither to be reached nor in the cache.
    """
    if Path(name).exists():
        return Path(name)
    if str(name) in (shipped := shipped_models()):
        return shipped[str(name)]
    from huggingface_hub import snapshot_download

    try:
        if str(name).count("/") != 1:
            raise FileNotFoundError("there is no such folder")
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:  # those of the hub, of the network and of names
        raise InputError(
            expected=f"a model folder, organisation/model on the hub, or one of {', '.join(shipped)}",
            found=f"{name}: {type(error).__name__}: {first_line(error)}",
            fix="Check the name and the network. Without one, only models that were downloaded before can be named.",
        ) from error


def push_model(folder: Path, repo: str, *, card: str, private: bool = False) -> str:
    """Upload a saved model and its card to the hub, in one commit.

    Args:
        folder: Holds ``config.json`` and ``model.safetensors``.
        repo: ``"organisation/model"``; made where there is none.
        card: Text of the model card.
        private: Whether a new repository can be seen by its organisation alone.

    Returns:
        Address of the commit.

    Raises:
        InputError: The hub refuses: no token, no right to write there, no network, or no such name.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    contents = {name: folder / name for name in _FILES} | {CARD: card.encode()}
    files = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
    try:
        hub = HfApi(library_name="neurobridge-tb")
        hub.create_repo(repo, private=private, exist_ok=True)
        return str(hub.create_commit(repo, operations=files, commit_message="Upload model").commit_url)
    except (OSError, ValueError) as error:
        raise InputError(
            expected=f"a repository {repo} on the hub that you may write to",
            found=f"{type(error).__name__}: {first_line(error)}",
            fix="Log in with `hf auth login`, name a repository of yours, and check the network.",
        ) from error
