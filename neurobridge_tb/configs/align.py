"""Settings of ``align``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import LoaderConfig, MaskedConfig, PairsConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class ReadoutConfig:
    """From latents to the image embedding."""

    linear_path: bool = setting(True, "Responses to embedding, by ridge regression in closed form.")
    num_queries: int = setting(8, "Queries that read the latents.")
    dim_hidden: int = setting(1024, "Hidden width of the projector.")
    dropout: float = setting(0.5, "Dropout in the projector.")


@dataclass
class Stage1Config:
    """The encoder is frozen."""

    epochs: int = setting(6, "Passes over the training pairs.")
    lr: float = setting(1e-4, "Highest learning rate of the read-out.")


@dataclass
class Stage2Config:
    """The encoder's last processing layers are free."""

    epochs: int = setting(2, "Passes over the training pairs; 0: no second stage.")
    lr: float = setting(5e-5, "Highest learning rate of the free layers.")
    free_layers: int = setting(2, "How many; 0: none.")
    replay_weight: float = setting(0.5, "Weight of the masked loss of pretraining, replayed; 0: off.")
    replay_batch: int = setting(32, "Windows replayed in each step.")
    l2sp_weight: float = setting(0.0, "Weight of the squared distance from the pretrained weights (L2-SP); 0: off.")


@dataclass
class AugmentConfig:
    """Augmentation of training windows."""

    unit_dropout: float = setting(0.2, "At most this share of the units is hidden from a window.")
    noise: float = setting(0.0, "Amplitude noise, in each unit's standard deviations.")
    time_jitter: int = setting(0, "Windows are moved by up to so many bins; for recordings in time bins.")
    average_repeats: bool = setting(
        False, "Average presentations of one image that are in a batch; for repeated images."
    )


@dataclass
class AlignConfig(PairsConfig, MaskedConfig):
    """Align a pretrained encoder with image embeddings: stage 1 with the encoder frozen, stage 2 with its last layers
    free and masked loss replayed. Run again with the same run_dir to resume.

    Example: neurobridge align dataset.root=processed pretrained=runs/pretrain/model embeddings=embeddings.h5
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "tvsd"}

    run_dir: str = setting("runs/align", "Folder of the run.", path=True)
    pretrained: str = setting("runs/pretrain/model", "Encoder to start from.", source=True)
    layers: list[str] | None = setting(
        None, "Layers of the embeddings, e.g. [blocks.3@4x4, final]; null: all, weighted by validation."
    )
    readout: ReadoutConfig = setting(ReadoutConfig(), "From latents to the image embedding.")
    stage1: Stage1Config = setting(Stage1Config(), "The encoder is frozen.")
    stage2: Stage2Config = setting(Stage2Config(), "The encoder's last processing layers are free.")
    regression_weight: float = setting(1.0, "Weight of the loss in the image embedding's own scale.")
    augment: AugmentConfig = setting(AugmentConfig(), "Augmentation of training windows.")
    weight_decay: float = setting(0.05, "Of the weight matrices.")
    loader: LoaderConfig = setting(LoaderConfig(batch_size=128), "Batches of pairs.")
