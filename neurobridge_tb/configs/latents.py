"""Settings of ``latents``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import RecordingsConfig
from neurobridge_tb.configs.settings import setting


@dataclass
class LatentsConfig(RecordingsConfig):
    """Latents of whole recordings, with their times and the columns of a table: arrays for work of your own, and
    pictures.

    Example: neurobridge latents dataset.root=processed pretrained=runs/pretrain/model table=trials colour=stimulus
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "binned"}

    run_dir: str = setting("runs/latents", "Folder of the results.", path=True)
    pretrained: str = setting("runs/pretrain/model", "Encoder.", source=True)
    file_format: str = setting("npz", "npz, or zarr.")
    table: str | None = setting(None, "Table whose columns are written for each latent step, e.g. trials; null: none.")
    colour: str | None = setting(None, "Column of the table that colours the picture of principal components.")
    align: str = setting("start", "Column of the table with the times that the window of a row is relative to.")
    umap: bool = setting(False, "Also a UMAP beside the principal components; needs the extra umap.")
    embeddings: str | None = setting(
        None, "Embeddings of the images that colour names (`neurobridge embed`): their dissimilarity too.", source=True
    )
    window: list[float] | None = setting(None, "Activity of a row for similarity, in s from align; null: to its end.")
