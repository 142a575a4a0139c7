"""Decoding a column of a table, or a series, from the latents of a pretrained encoder."""

from pathlib import Path
from typing import Any

from neurobridge_tb.configs.decode import DecodeConfig
from neurobridge_tb.data.targets import series_spec
from neurobridge_tb.datasets.provenance import is_pseudo_population, is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.files import write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.report.decoding_figures import save_decoding_figures
from neurobridge_tb.scoring.row_decoding import decode_column
from neurobridge_tb.scoring.series_decoding import decode_series


def decode(config: DecodeConfig | None = None, /, **settings: Any) -> Path:
    """Write ``metrics.json`` and figures: how well a target is decoded, and by which features best.

    Of a table's column, classes are decoded by logistic regression (accuracy, balanced accuracy, area under the curve,
    permutation p) and values by ridge (R^2, correlation); each row of the table is decoded once, by a decoder fitted
    to other rows. Of a series, every bin of the test split is decoded by ridge. Intervals are 95 % bootstraps; the
    table says which features are best, and whether the others are apart from them.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`DecodeConfig`.
        **settings: Settings by name, e.g. ``root="processed", target="trials.stimulus"``; see
            :func:`~neurobridge_tb.engine.config.settle`.

    Returns:
        The folder of the results.
    """
    config = settle(DecodeConfig, config, settings)
    dataset = open_dataset(config.dataset)
    spec = series_spec(dataset, config.target)
    model = place(NeuroBridgeModel.from_pretrained(config.pretrained).eval(), config)
    content = decode_column(config, dataset, model) if spec is None else decode_series(config, dataset, model, spec)
    if is_pseudo_population(dataset):
        content["notes"].insert(0, "Pseudo-population: units were recorded apart, trials share no noise.")
    content = {
        "job": "decode",
        "dataset": ", ".join(dataset.recording_ids),
        "simulated": is_simulated(dataset),
        "pseudo-population": is_pseudo_population(dataset),
        "command": config.command,
        "target": config.target,
        **content,
    }
    run_dir = Path(config.run_dir)
    write_json(run_dir / "metrics.json", content)
    save_decoding_figures(content, run_dir / "figures")
    return run_dir
