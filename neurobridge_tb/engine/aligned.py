"""Finished alignment runs: their model, their embeddings, the pairs that they were trained on."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.configs.evaluate import EvaluateConfig
from neurobridge_tb.configs.reconstruct import ReconstructConfig
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import ImageAligner


def load_aligned(run: str | Path, embeddings: str | Path) -> tuple[ImageAligner, EmbeddingCache]:
    """The final model of an alignment run, and embeddings of the encoder that it was aligned with."""
    model = ImageAligner.load_pretrained(Path(run) / "model")
    source = model.config["image_encoder"], model.config["preprocessing_hash"]
    return model, EmbeddingCache.load(embeddings, *source, layers=list(model.layers))


def check_same_pairs(config: EvaluateConfig | ReconstructConfig, *settings: str) -> None:
    """Baselines are fitted to the very pairs that the aligner was trained on.

    Args:
        config: Of a job that has ``aligned``, the run folder of the alignment.
        *settings: Names of what must be set as in the alignment run.

    Raises:
        InputError: One of them is not.
    """
    trained: Any = OmegaConf.load(Path(config.aligned) / "config.yaml")
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
