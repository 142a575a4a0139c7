"""Settings of ``forecast``."""

from dataclasses import dataclass
from typing import Any, ClassVar

from neurobridge_tb.configs.models import ForecasterConfig
from neurobridge_tb.configs.parts import LoaderConfig, MaskedConfig, OptimizerConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class ForecastConfig(MaskedConfig):
    """Train a NeuroHorizonModel to forecast spikes up to a second ahead, and score it rolled out, beside the last
    smoothed rate; also on recordings whose units it never saw. Run again with the same run_dir to resume.

    Example: neurobridge forecast dataset=binned dataset.root=processed model.bin_size=0.05
    model.history=0.25 model.horizon=0.5
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "binned", "forecaster": "auto"}

    run_dir: str = setting("runs/forecast", "Folder of the run.", path=True)
    model: ForecasterConfig = setting(ForecasterConfig(), "The model.")
    loader: LoaderConfig = setting(LoaderConfig(batch_size=0), "Batches of windows.")
    unit_dropout: float = setting(0.5, "At most this share of the units is hidden from a training window.")
    rate_jitter: float = setting(0.0, "Units' mean rates are off by exp(N(0, this)) in training: for rates that drift.")
    strangers: bool = setting(
        True, "unit_identity=features: recordings play the unseen session in training, with an earlier reference."
    )
    stride: int = setting(10, "Bins from one window to the next (windows=continuous).")
    align: str | None = setting(
        None, "windows=trial: column of `trials` at which the future begins; null: trials begin windows."
    )
    reference_seconds: float = setting(60, "Length (s) of the reference window, from the start of the training data.")
    unseen: Any = setting(
        [],
        "Recordings left out of training, forecast from reference features (zero-shot); each: every recording once, "
        "one run each.",
    )
    units: list[str] | None = setting(None, "Unit ids to score; null: all.")
    psth_condition: str | None = setting(
        None, "Column of `trials` that tells conditions apart for the PSTH; null: one condition."
    )
    glm_horizons: list[float] = setting(
        [], "Times ahead (s) for which a Poisson GLM on the last five bins of all units is fitted."
    )
    optimizer: OptimizerConfig = setting(OptimizerConfig(), "AdamW.")
