"""Settings of ``score``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import RecordingsConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class ScoreConfig(RecordingsConfig):
    """Bits/spike of a pretrained model where fixed masks hide units, areas or the future, beside a Poisson GLM and
    factor analysis on the same inputs.

    Example: neurobridge score dataset=binned dataset.root=processed pretrained=runs/pretrain/model
    'tasks=[co_smoothing, intra_region, inter_region]'
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "binned"}

    run_dir: str = setting("runs/score", "Folder of the results.", path=True)
    pretrained: str = setting("runs/pretrain/model", "Model to score.", source=True)
    tasks: list[str] = setting(
        ["co_smoothing", "forward"],
        "co_smoothing, forward, few_shot, and where units have areas intra_region and inter_region.",
    )
    held_out: int = setting(24, "Units that co-smoothing hides.")
    shots: list[int] = setting([8, 32], "Training windows that few_shot fits a read-out of the hidden units to.")
    max_targets: int = setting(64, "At most so many units of an area are predicted in the regional tasks.")
    glm_lags: list[int] = setting([-2, -1, 0, 1, 2], "Bins around the predicted one that the GLM sees.")
