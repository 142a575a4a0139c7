"""Settings of ``evaluate``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import PairsConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class EvaluateConfig(PairsConfig):
    """Retrieval of the test images, with confidence intervals, beside ridge, shuffled labels and chance.

    Example: neurobridge evaluate dataset.root=processed aligned=runs/align embeddings=embeddings.h5
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "tvsd"}

    run_dir: str = setting("runs/evaluate", "Folder of the results.", path=True)
    aligned: str = setting("runs/align", "Run folder of `neurobridge align`.", path=True)
    per_area: bool = setting(False, "The same table for each area alone.")
    resamples: int = setting(2000, "Resamples of the bootstrap.")
    permutations: int = setting(10000, "Permutations of the test against chance.")
