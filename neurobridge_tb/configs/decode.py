"""Settings of ``decode``."""

from dataclasses import dataclass
from typing import ClassVar

from neurobridge_tb.configs.parts import RecordingsConfig
from neurobridge_tb.configs.settings import REQUIRED, setting


@dataclass
class DecodeConfig(RecordingsConfig):
    """Decode a column of a table, or a series, from a pretrained encoder's latents, beside the same decoder on spike
    counts and on the latents of random weights.

    Example: neurobridge decode dataset.root=processed pretrained=runs/pretrain/model target=trials.stimulus
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "binned"}

    run_dir: str = setting("runs/decode", "Folder of the results.", path=True)
    pretrained: str = setting("runs/pretrain/model", "Encoder whose latents are read.", source=True)
    target: str = setting(
        REQUIRED,
        "TABLE.COLUMN, e.g. trials.stimulus, or SERIES.QUANTITY, e.g. hand.velocity; the first part may be left out "
        "where only one is called so; or several: A,B.",
    )
    kind: str = setting("auto", "classes, values, or auto: text and few whole numbers are classes.")
    align: str = setting(
        "start",
        "Column of the table with the times that the window is relative to; of several targets one or one each.",
    )
    window: list[float] | None = setting(
        None, "Activity that is read, e.g. [0, 0.5] s from align; null: to the row's end."
    )
    bins: float | None = setting(None, "Also decode in bins of so many seconds: a time course.")
    folds: int = setting(5, "Each row tests once, and those of the other folds train; 0: the recordings' own splits.")
    train_on: str | None = setting(None, "Train on rows of a condition only, e.g. position=upper,middle.")
    test_on: str | None = setting(None, "Test on rows of a condition only, e.g. position=lower, or recording=day2.")
    areas: bool = setting(True, "Also decode from the units of each area alone, where there are several.")
    networks: bool = setting(True, "Of columns: also train networks on the labels: the encoder, fine-tuned, and a GRU.")
    steps_around: int = setting(4, "Of a series: latent steps before and after a bin's own that are read.")
    history: int = setting(10, "Of a series: bins of counts that are read, present and past.")
