"""Settings of ``submit_bwb``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import RecordingsConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class SubmitBwbConfig(RecordingsConfig):
    """Predictions for BrainWideBench's co-smoothing and forecasting of its evaluation sessions: files that
    `ibl-bwb-eval` scores. A NeuroHorizonModel forecasts only.

    Example: neurobridge submit-bwb dataset.root=data/selected_units dataset.arguments.regime=eval
    pretrained=runs/bwb_eval/model label=ours
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "bwb"}

    run_dir: str = setting("runs/submit_bwb", "Folder of the submissions.", path=True)
    pretrained: str = setting("runs/adapt/model", "Model that predicts; it knows the sessions.", source=True)
    label: str = setting("neurobridge", "The submission's name.")
    seed: int = setting(43, "The seed of the model's training; the benchmark reports five, 43 to 47.")
