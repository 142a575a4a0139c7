"""Settings of ``adapt``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import MaskedOptimizerConfig, MaskedTrainingConfig, TrainerConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class UnfreezeConfig:
    """When parts of the model join in, for mode=gradual."""

    first: float = setting(0.2, "Share of the training after which the decoder starts to learn.")
    last: float = setting(0.6, "... and after which the input does; layers in between, from the last to the first.")


@dataclass
class AdaptOptimizerConfig(MaskedOptimizerConfig):
    """AdamW for rows and the rest."""

    lr: float = setting(5e-3, "Highest learning rate of the rows of units and recordings.")
    body_lr: float = setting(3e-4, "Highest learning rate of the rest.")


@dataclass
class AdaptConfig(MaskedTrainingConfig):
    """Adapt a trained model to new recordings: rows for their units and sessions, and with mode=gradual the rest of
    the model after them. Run again with the same run_dir to resume.

    Example: neurobridge adapt dataset=binned dataset.root=processed pretrained=runs/pretrain/model mode=units
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "binned"}

    run_dir: str = setting("runs/adapt", "Folder of the run.", path=True)
    pretrained: str = setting("runs/pretrain/model", "Model to start from.", source=True)
    mode: str = setting("units", "units: only rows of units and recordings learn; gradual: the rest joins in later.")
    unfreeze: UnfreezeConfig = setting(UnfreezeConfig(), "When parts of the model join in.")
    optimizer: AdaptOptimizerConfig = setting(AdaptOptimizerConfig(), "AdamW.")
    trainer: TrainerConfig = setting(TrainerConfig(max_epochs=20), "Arguments of lightning.Trainer.")
