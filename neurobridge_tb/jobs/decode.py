"""Decoding a column of a table, or a series, from the latents of a pretrained encoder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from neurobridge_tb.configs.decode import DecodeConfig
from neurobridge_tb.data.targets import full_name, series_spec
from neurobridge_tb.datasets.provenance import is_pseudo_population, is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.progress import say
from neurobridge_tb.report.drawing.decoding_figures import save_decoding_figures
from neurobridge_tb.scoring.decoding.row_decoding import decode_column
from neurobridge_tb.scoring.decoding.series_decoding import decode_series


def decode(config: DecodeConfig | None = None, /, **settings: Any) -> Path:
    """Write ``metrics.json`` and figures: how well a target is decoded, and by which features best.

    Of a table's column, classes are decoded by logistic regression (accuracy, balanced accuracy, area under the curve,
    permutation p) and values by ridge (R^2, correlation); each row of the table is decoded once, by a decoder fitted
    to other rows. Of a series, every bin of the test split is decoded by ridge. Intervals are 95 % bootstraps; the
    table says which features are best, and whether the others are apart from them.

    Several targets, separated by commas, have a folder each, and one table.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`DecodeConfig`.
        **settings: Settings by name, e.g. ``root="processed", target="trials.stimulus"``; see
            :func:`~neurobridge_tb.engine.config.settle`.

    Returns:
        The folder of the results.
    """
    config = settle(DecodeConfig, config, settings)
    dataset = open_dataset(config.dataset)
    targets, aligns = ([name.strip() for name in names.split(",")] for names in (config.target, config.align))
    targets = [full_name(dataset, target) for target in targets]
    specs = [series_spec(dataset, target) for target in targets]
    if len(aligns) not in (1, len(targets)):
        raise InputError(
            expected="one column of times for all targets, or one for each",
            found=f"align={config.align}, {len(targets)} targets",
            fix="Separate them by commas, as the targets are.",
        )
    if len(targets) > 1:
        pairs = zip(targets, aligns * len(targets) if len(aligns) == 1 else aligns, strict=True)
        return _decode_each(config, list(pairs))
    config, spec = replace(config, target=targets[0]), specs[0]
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


def _decode_each(config: DecodeConfig, pairs: list[tuple[str, str]]) -> Path:
    """Every target in a folder of its own, and their rows in one table."""
    rows: list[dict[str, Any]] = []
    for target, align in pairs:
        say(f"Decoding {target}")
        folder = decode(replace(config, target=target, align=align, run_dir=f"{config.run_dir}/{target}"))
        content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        rows += [{"target": target, **row} for row in content["rows"]]
    write_json(
        Path(config.run_dir) / "metrics.json",
        {
            "job": "decode",
            "dataset": content["dataset"],
            "simulated": content["simulated"],
            "pseudo-population": content["pseudo-population"],
            "command": config.command,
            "notes": ["Notes and figures lie in a folder for each target."],
            "rows": rows,
        },
    )
    return Path(config.run_dir)
