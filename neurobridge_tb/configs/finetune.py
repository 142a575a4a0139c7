"""Settings of ``finetune``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import LoaderConfig, MaskedConfig, OptimizerConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class FinetuneOptimizerConfig(OptimizerConfig):
    """AdamW for networks from scratch and pretrained ones."""

    lr: float = setting(2e-3, "Highest learning rate of networks that start from scratch.")
    pretrained_lr: float = setting(5e-4, "... of the pretrained network, which starts from the closed form.")


@dataclass
class FinetuneConfig(MaskedConfig):
    """Fine-tune a pretrained encoder on a continuous behaviour, beside the same network from scratch, a GRU, POYO and
    ridge on the same labels. Run again with the same run_dir to resume.

    Example: neurobridge finetune dataset=binned dataset.root=processed pretrained=runs/pretrain/model
    target=hand_velocity_2d labels=21
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "binned"}

    run_dir: str = setting("runs/finetune", "Folder of the run.", path=True)
    pretrained: str = setting("runs/pretrain/model", "Encoder to start from.", source=True)
    target: str = setting("hand_velocity_2d", "A series, e.g. hand.velocity, or a continuous modality of the registry.")
    labels: int | None = setting(None, "Labelled training intervals (the first ones); null: all.")
    rows: list[str] = setting(
        ["pretrained", "frozen", "scratch", "gru", "poyo", "ridge"], "Decoders to train and to score."
    )
    steps: int = setting(1500, "Optimizer steps of each decoder.")
    optimizer: FinetuneOptimizerConfig = setting(FinetuneOptimizerConfig(), "AdamW.")
    unit_dropout: float = setting(0.4, "At most this share of the units is hidden from a training window.")
    history: int = setting(10, "Bins that ridge sees (present and past).")
    loader: LoaderConfig = setting(LoaderConfig(batch_size=32), "Batches of windows.")
