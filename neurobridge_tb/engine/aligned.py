"""Finished alignment runs: their model, their embeddings, the pairs that they were trained on."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.encoders import ImageEncoder, load_image_encoder
from neurobridge_tb.alignment.source import describe_source, same_source
from neurobridge_tb.configs.evaluate import EvaluateConfig
from neurobridge_tb.configs.reconstruct import ReconstructConfig
from neurobridge_tb.engine.saved_settings import load_settings
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import ImageAligner


def load_aligned(run: str | Path, embeddings: str | Path) -> tuple[ImageAligner, EmbeddingCache]:
    """The final model of an alignment run, and embeddings of the encoder that it was aligned with."""
    model = ImageAligner.load_pretrained(Path(run) / "model")
    source = model.config["image_encoder"], model.config["preprocessing_hash"]
    return model, EmbeddingCache.load(embeddings, *source, layers=list(model.layers))


def load_target_encoder(model: ImageAligner, device: torch.device) -> ImageEncoder:
    """The image encoder that a model was aligned to, with its preprocessing.

    Args:
        model: The aligned model.
        device: Where the encoder computes.

    Raises:
        InputError: It cannot be had, or the model does not tell its image size.
    """
    name, preprocessing = model.config["image_encoder"], model.config["preprocessing_hash"]
    size = preprocessing.partition("px-")[0]
    encoder = load_image_encoder(name, int(size) if size.isdecimal() else None, device)
    if not same_source((encoder.name, encoder.preprocessing_hash), (name, preprocessing)):
        raise InputError(
            expected=f"an alignment that tells the image size of its embeddings, by {describe_source(name, None)}",
            found=describe_source(name, preprocessing),
            fix="Embed the images anew and align again.",
        )
    return encoder


def is_independent(judge: str, guides: Iterable[str]) -> bool:
    """Whether a judge is another network than those that pictures were aligned to, drawn or chosen by."""
    return judge.partition("@")[0] not in {guide.partition("@")[0] for guide in guides}


def unfinished(run: str | Path) -> str | None:
    """What is to be said of an alignment run that did not come to its end, or None."""
    run = Path(run)
    if (run / "metrics.json").exists():
        return None
    return f"The alignment in {run} was not finished: its best epoch so far is scored. Run it again to resume."


def check_same_pairs(config: EvaluateConfig | ReconstructConfig, *settings: str) -> None:
    """Baselines are fitted to the very pairs that the aligner was trained on.

    Args:
        config: Of a job that has ``aligned``, the run folder of the alignment.
        *settings: Names of what must be set as in the alignment run.

    Raises:
        InputError: One of them is not.
    """
    trained = load_settings(Path(config.aligned) / "config.yaml")
    for name in settings:
        if name in trained and trained[name] != getattr(config, name):
            raise InputError(
                expected=f"{name}={_override(trained[name])}, as {config.aligned} was trained",
                found=_override(getattr(config, name)),
                fix="Use the setting of the alignment run, or align again.",
            )


def _override(value: Any) -> str:
    """A setting as it is written on the command line."""
    return json.dumps(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value).replace('"', "")
