"""A submission to BrainWideBench."""

from pathlib import Path
from typing import Any

from neurobridge_tb.configs.submit_bwb import SubmitBwbConfig
from neurobridge_tb.datasets import IblBrainWideBench2026, is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_json
from neurobridge_tb.hub import model_folder
from neurobridge_tb.models import NeuroBridgeModel, NeuroHorizonModel
from neurobridge_tb.models.pretrained import saved_class
from neurobridge_tb.scoring.submissions.brain_wide_bench import TASKS, write_bench_predictions


def submit_bwb(config: SubmitBwbConfig | None = None, /, **settings: Any) -> Path:
    """Write ``<label>/ts2-<task>/<session>/seed_<seed>.safetensors`` for each task and session; returns the run folder.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`SubmitBwbConfig`.
        **settings: Settings by name, e.g. ``label="ours"``; see :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(SubmitBwbConfig, config, settings)
    dataset = open_dataset(config.dataset)
    if not isinstance(dataset, IblBrainWideBench2026) or dataset.suite != "ts2":
        raise InputError(
            expected="the benchmark's evaluation sessions",
            found=f"{type(dataset).__name__}, suite {getattr(dataset, 'suite', None)!r}",
            fix="Set dataset=bwb dataset.arguments.regime=eval.",
        )
    pretrained = model_folder(config.pretrained)
    forecasts = saved_class(pretrained) == NeuroHorizonModel.__name__
    model = place((NeuroHorizonModel if forecasts else NeuroBridgeModel).load_pretrained(pretrained), config)
    folder = Path(config.run_dir)
    given: dict[str, Any] = {"out": folder, "label": config.label, "seed": config.seed}
    rows = [
        {
            "recording": recording_id,
            "task": task,
            "file": str(write_bench_predictions(model, dataset, recording_id, task, **given).relative_to(folder)),
        }
        for recording_id in dataset.recording_ids
        for task in (TASKS[1:] if forecasts else TASKS)
    ]
    write_json(
        folder / "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "rows": rows,
        },
    )
    return folder
