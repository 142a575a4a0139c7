"""Settings of ``submit_nlb``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import RecordingsConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class SubmitNlbConfig(RecordingsConfig):
    """Rates for the Neural Latents Benchmark, of recordings made by `neurobridge import nlb`: the file that its server
    and `nlb_tools` score.

    Example: neurobridge submit-nlb dataset.root=processed/nlb pretrained=runs/nlb/model
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "nlb"}

    run_dir: str = setting("runs/submit_nlb", "Folder of the submission.", path=True)
    pretrained: str = setting("runs/pretrain/model", "Model that predicts.", source=True)
    trials: str = setting("val", "val: scored here too; test: the trials whose targets only the server has.")
