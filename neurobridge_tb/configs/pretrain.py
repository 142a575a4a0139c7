"""Settings of ``pretrain``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.models import ModelConfig
from neurobridge_tb.configs.parts import MaskedTrainingConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class PretrainConfig(MaskedTrainingConfig):
    """Masked pretraining of a NeuroBridgeModel. Run again with the same run_dir to resume.

    Example: neurobridge pretrain dataset=tvsd dataset.root=processed model=small trainer.max_epochs=50
    """

    groups: ClassVar[dict[str, str]] = {"model": "auto", "dataset": "tvsd", "window": "${dataset}"}

    run_dir: str = setting("runs/pretrain", "Folder of the run.", path=True)
    warm_start: str | None = setting(None, "A CaPOYO, POYO+ or POYO checkpoint to start from.", source=True)
    factor_start: bool = setting(True, "Fit the factors in closed form first; false: their loadings start at random.")
    model: ModelConfig = setting(ModelConfig(), "The model.")
