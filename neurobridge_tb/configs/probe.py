"""Settings of ``probe``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import RecordingsConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class ProbeConfig(RecordingsConfig):
    """Linear probe of a pretrained encoder: R^2 of a behaviour from its frozen latents, beside random weights and raw
    activity.

    Example: neurobridge probe dataset=binned dataset.root=processed pretrained=runs/pretrain/model
    target=hand_velocity_2d
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "binned"}

    run_dir: str = setting("runs/probe", "Folder of the results.", path=True)
    pretrained: str = setting("runs/pretrain/model", "Model to probe.", source=True)
    target: str = setting("hand_velocity_2d", "A continuous modality of the registry.")
    steps_around: int = setting(4, "Latent steps before and after a bin's own that the probe sees.")
    history: int = setting(10, "Bins that the ridge baseline on raw activity sees (present and past).")
