"""Settings of ``train-decoder``."""

from dataclasses import dataclass

from neurobridge_tb.configs.settings import REQUIRED, RunConfig, setting


@dataclass
class TrainDecoderConfig(RunConfig):
    """Train a decoder on a folder of images: image embedding -> picture. Run again with the same run_dir to resume.

    By default a small diffusion model, 64 x 64 pixels, which needs nothing else; or an adapter to a frozen Stable
    Diffusion. Test images must not be among those it learns from: name the recording with exclude=.

    Example: neurobridge train-decoder images=images embeddings=embeddings.h5 exclude=processed/tvsd/monkeyF_norm.h5
    """

    run_dir: str = setting("runs/decoder", "Folder to write the decoder to.", path=True)
    images: str = setting(REQUIRED, "Folder, or a binding made by `neurobridge images`.", path=True)
    embeddings: str = setting(REQUIRED, "File made by `neurobridge embed` on these images.", source=True)
    backend: str = setting("small_diffusion", "small_diffusion, sd_adapter or ip_adapter.")
    steps: int = setting(2000, "Optimizer steps.")
    exclude: str | None = setting(None, "Recording (HDF5) whose test images are left out.", path=True)
    weights: str | None = setting(None, "Adapters: hub id or folder of Stable Diffusion.", path=True)
    autoencoder: str | None = setting(None, "small_diffusion: draw in the latents of this one.", source=True)
    image_size: int | None = setting(None, "Pixels; null: 64, or Stable Diffusion's own.")
    batch_size: int | None = setting(None, "Pictures in a step; null: 64, for adapters 8.")
    lr: float | None = setting(None, "Highest learning rate; null: 1e-3, for adapters 1e-4.")
    device: str = setting("cpu", "Where to train, e.g. cuda.")
    dtype: str = setting("float32", "float32 or bfloat16.")
