"""Parts that several jobs' settings share."""

from dataclasses import dataclass
from typing import Any

from neurobridge_tb.configs.settings import REQUIRED, RunConfig, setting


@dataclass
class DatasetConfig:
    """Recordings, opened as a torch_brain Dataset."""

    _target_: str = setting(REQUIRED, "Class of the Dataset; the group `dataset` sets it.")
    root: str | None = setting(
        REQUIRED, "Folder of the recordings; null: the --processed-dir of the brainsets config.", path=True
    )
    recording_ids: list[str] | None = setting(None, "Which recordings, e.g. [monkeyF_norm]; null: all in the folder.")
    leave_out: list[str] = setting([], "Recordings to do without, of those.")
    arguments: dict[str, Any] = setting({}, "Further arguments of the class, e.g. dataset.arguments.variant=trials.")


@dataclass
class LoaderConfig:
    """Batches of windows."""

    batch_size: int = setting(64, "Windows in a batch (of each process); 0: by their number, 8 to 64.")
    num_workers: int = setting(0, "Worker processes that read windows.")
    recording_exponent: float = setting(
        0.5, "Recordings are drawn in proportion to size to this power; 1: as many windows as each has, 0: all alike."
    )


@dataclass
class TrainerConfig:
    """Arguments of lightning.Trainer."""

    devices: Any = setting(1, "How many devices of the kind of `device`, or which, e.g. [0,2]; of cpu: processes.")
    num_nodes: int = setting(1, "Machines.")
    strategy: str = setting("auto", "How processes share the training, e.g. ddp.")
    max_epochs: int | None = setting(50, "Passes over the training windows.")
    max_steps: int = setting(-1, "Stop after so many optimizer steps; -1: no limit.")
    max_time: str | None = setting(None, "Stop after DD:HH:MM:SS.")
    limit_train_batches: Any = setting(None, "Batches of an epoch: a number, or a share as 0.1; null: all.")
    limit_val_batches: Any = setting(None, "Batches of a validation: a number, or a share as 0.1; null: all.")
    num_sanity_val_steps: int | None = setting(None, "Validation batches tried before the training; null: 2.")
    gradient_clip_val: float | None = setting(1.0, "Largest norm of the gradient; null: no limit.")
    accumulate_grad_batches: int = setting(1, "Batches whose gradients are averaged in a step.")
    deterministic: bool | None = setting(None, "Only operations that give the same figures each time.")
    detect_anomaly: bool = setting(False, "Find the operation that makes a gradient NaN; slow.")
    profiler: str | None = setting(None, "simple or advanced: where the time goes.")
    enable_model_summary: bool = setting(False, "Print a table of the layers.")
    enable_progress_bar: bool = setting(True, "Show progress: a bar, or lines where there is no terminal.")
    logger: str = setting("tensorboard", "Where curves go: csv (metrics.csv alone), tensorboard, wandb or mlflow.")
    log_every_n_steps: int = setting(10, "Steps between lines of the log.")


@dataclass
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to zero."""

    lr: float = setting(1e-3, "Highest learning rate.")
    weight_decay: float = setting(0.05, "Of the weight matrices; embeddings, gains and biases are not decayed.")


@dataclass
class MaskedOptimizerConfig(OptimizerConfig):
    """AdamW for a model with factors."""

    factor_lr: float = setting(
        1e-4,
        "Highest learning rate of the factor model, which starts at a fit; 0: it stays there; from lr on, counts are "
        "trained without the response that was fitted to later windows.",
    )


@dataclass
class LossConfig:
    """The loss of masked modelling."""

    unit_weights: str | None = setting(
        None,
        "communality: units count by the share of their variance that the factors explain; reliability: by the column "
        "of that name (TVSD); null: all alike.",
    )
    image_weight: float = setting(
        0.0, "Weight of the cosine of a linear read-out of the latents and the embedding of the image shown, e.g. 0.01."
    )
    embeddings: str | None = setting(None, "File made by `neurobridge embed`, for image_weight.", source=True)


@dataclass
class RecordingsConfig(RunConfig):
    """A job that reads recordings."""

    dataset: DatasetConfig = setting(DatasetConfig(), "Which recordings.")
    windows: str = setting(
        REQUIRED, "trial: each interval is a window; continuous: windows lie anywhere inside the intervals."
    )
    masking: dict[str, float] = setting(
        {},
        "Relative weights of the masking schemes: temporal, causal, neuron, intra_region, inter_region, random, "
        "or your own; 0 leaves one out.",
    )


@dataclass
class MaskedConfig(RecordingsConfig):
    """A job with masked windows."""

    loader: LoaderConfig = setting(LoaderConfig(), "Batches of windows.")
    trainer: TrainerConfig = setting(TrainerConfig(), "Arguments of lightning.Trainer.")
    compile: bool = setting(False, "Compile the network (torch.compile): the first steps take minutes, the rest less.")


@dataclass
class MaskedTrainingConfig(MaskedConfig):
    """Training by masked modelling."""

    ema: float | None = setting(
        None, "E.g. 0.999: decay of a moving average of the weights, which is validated and exported."
    )
    loader: LoaderConfig = setting(LoaderConfig(batch_size=0), "Batches of windows.")
    gradient_checkpointing: bool = setting(False, "Less memory, more time, the same gradients.")
    optimizer: MaskedOptimizerConfig = setting(MaskedOptimizerConfig(), "AdamW.")
    loss: LossConfig = setting(LossConfig(), "The loss.")


@dataclass
class PairsConfig(RecordingsConfig):
    """Presentations paired with image embeddings; evaluation takes the settings of the alignment run."""

    embeddings: str = setting(REQUIRED, "File made by `neurobridge embed`, or by EmbeddingCache.save.", source=True)
    areas: list[str] | None = setting(None, "E.g. [V1]: units of other areas are hidden, from baselines too.")
    time_window: list[float] | None = setting(
        None, "E.g. [0.1, 0.2]: bins that begin outside (s from the window's start) are hidden."
    )
    exclude_test_concepts: bool = setting(False, "Train on no image of a test image's concept.")
    train_share: float = setting(1.0, "Share of the training pairs that is used, e.g. 0.01.")
    shared_test_images: bool = setting(False, "Go on where test images are trained on too.")
