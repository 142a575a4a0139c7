"""Settings of ``embed``."""

from dataclasses import dataclass

from neurobridge_tb.configs.settings import REQUIRED, JobConfig, setting


@dataclass
class EmbedConfig(JobConfig):
    """Embed every stimulus image once, for `align`, `evaluate` and `reconstruct`. Run again to go on where it was cut.

    Example: neurobridge embed images=images out=embeddings.h5 image_size=128
    """

    images: str = setting(REQUIRED, "Folder, or a binding made by `neurobridge images`.", path=True)
    out: str = setting(REQUIRED, "HDF5 file to write.", path=True)
    encoder: str = setting("timm:tf_efficientnet_lite0", "timm:NAME[@WEIGHTS] or open_clip:NAME/TAG.")
    image_size: int | None = setting(None, "Pixels; null: the encoder's own.")
    layers: list[str] = setting(
        ["final"], "Layers to keep, by name or share of the depth, on places with @3x3, e.g. [0.5@3x3, final]."
    )
    batch_size: int = setting(32, "Images in a batch of the encoder.")
    num_workers: int = setting(0, "Worker processes that read images.")
