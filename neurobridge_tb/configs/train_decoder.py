"""Settings of ``train-decoder``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.settings import REQUIRED, RunConfig, setting


@dataclass
class TrainDecoderConfig(RunConfig):
    """Train a decoder on a folder of images: features -> picture. Run again with the same run_dir to resume.

    By default an autoencoder and a flow in its latents, 64 x 64 pixels, which go on from the packaged ones; or an
    adapter to a frozen Stable Diffusion. Test images must not be among those it learns from: name the recording, or
    the folder of all recordings, with exclude=.

    Example: neurobridge train-decoder images=images embeddings=embeddings.h5 exclude=processed/tvsd/monkeyF_norm.h5
    """

    is_locked: ClassVar[bool] = False  # the folder holds a decoder alone; the training locks its own

    run_dir: str = setting("runs/decoder", "Folder to write the decoder to.", path=True)
    images: str = setting(REQUIRED, "Folder, or a binding made by `neurobridge images`.", path=True)
    embeddings: str = setting(REQUIRED, "File made by `neurobridge embed` on these images.", source=True)
    backend: str = setting("flow", "flow, sd_adapter or ip_adapter.")
    steps: int | None = setting(None, "Optimizer steps; null: 8000, of which the autoencoder 2000; adapters 2000.")
    exclude: str | None = setting(None, "Recording, or folder of them, whose test images are left out.", path=True)
    weights: str | None = setting(None, "Adapters: hub id or folder of Stable Diffusion.", path=True)
    start: str | None = setting(None, "flow: decoder to go on from; null: the packaged one.", path=True)
    from_scratch: bool = setting(False, "flow: go on from no decoder.")
    image_size: int | None = setting(None, "Pixels; null: 64, or Stable Diffusion's own.")
    batch_size: int | None = setting(None, "Pictures in a step; null: 64 (autoencoder 16), for adapters 8.")
    lr: float | None = setting(None, "Highest learning rate; null: 1e-3, for adapters 1e-4.")
