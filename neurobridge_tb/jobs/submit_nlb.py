"""A submission to the Neural Latents Benchmark."""

from pathlib import Path
from typing import Any

from neurobridge_tb.configs.submit_nlb import SubmitNlbConfig
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.files import write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.scoring.submissions.neural_latents import write_nlb_rates


def submit_nlb(config: SubmitNlbConfig | None = None, /, **settings: Any) -> Path:
    """Write ``<recording>.h5`` for each recording, and ``metrics.json``; returns the run folder.

    Of validation trials, ``metrics.json`` has the benchmark's ``co-bps`` and ``fp-bps``, beside its plain baseline's.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`SubmitNlbConfig`.
        **settings: Settings by name, e.g. ``trials="test"``; see :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(SubmitNlbConfig, config, settings)
    dataset = open_dataset(config.dataset)
    model = place(NeuroBridgeModel.from_pretrained(config.pretrained), config)
    folder = Path(config.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in dataset.recording_ids:
        scores = write_nlb_rates(model, dataset, name, out=folder / f"{name}.h5", trials=config.trials)
        row = {"recording": name, "trials": config.trials}
        rows += [row | {"model": its} | values for its, values in scores.items()] or [row]
    write_json(
        folder / "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "metric": "bits/spike",
            "rows": rows,
        },
    )
    return folder
