"""How well a pretrained model fills in what fixed masks hide, beside closed forms on the same inputs."""

from pathlib import Path
from typing import Any

from neurobridge_tb.configs.score import ScoreConfig
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import open_dataset, settle
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_json
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.progress import say
from neurobridge_tb.report.drawing.figure_style import save_figure
from neurobridge_tb.report.drawing.score_figures import task_bars
from neurobridge_tb.scoring.masked.bits_tally import Tally, table_row
from neurobridge_tb.scoring.masked.few_shot import score_few_shot
from neurobridge_tb.scoring.masked.hidden_cells import score_task
from neurobridge_tb.scoring.queries import Queries
from neurobridge_tb.scoring.split_windows import SplitWindows


def score(config: ScoreConfig | None = None, /, **settings: Any) -> Path:
    """Write ``metrics.json``: bits/spike of each task on the test split, and by window to ``queries.npz``; returns the
    run folder.

    There is a row for each recording, and where there are several, one for all of them together.

    Bits/spike are spike-weighted, with a 95 % bootstrap interval over windows, and beside it the mean over units; the
    null model is each unit's mean rate on the training split. Counts that are absent (NaN) are neither seen nor scored,
    and windows without any are left out. Beside the model stand a Poisson GLM and factor analysis of the training split
    (:mod:`neurobridge_tb.scoring.masked.hidden_cells`); few-shot co-smoothing fits all three to few windows
    (:mod:`neurobridge_tb.scoring.masked.few_shot`).

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`ScoreConfig`.
        **settings: Settings by name, e.g. ``root="processed", tasks=["forward"]``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(ScoreConfig, config, settings)
    if not config.tasks:
        raise InputError(expected="a task or more", found="tasks=[]", fix="Leave tasks= out for the usual ones.")
    dataset = open_dataset(config.dataset)
    model = place(NeuroBridgeModel.from_pretrained(config.pretrained).eval(), config)
    rows: list[dict[str, Any]] = []
    tallies: dict[str, list[dict[str, Tally]]] = {}
    queries = Queries()
    for recording_id in dataset.recording_ids:
        recording = SplitWindows.read(model, dataset, recording_id, windows=config.windows)
        for task in config.tasks:
            say(f"Scoring {task} in {recording_id}")
            for name, scored in _scored(config, task, model, recording).items():
                tallies.setdefault(name, []).append(scored)
                row = table_row(recording_id, name, [scored], config.seed)
                by_window = {f"scores.{its}": tally.by_window() for its, tally in scored.items()}
                windows = [f"{recording_id} {k}" for k in range(len(recording.windows["test"]))]
                rows += queries.take([row | {"by query": by_window}], windows)
    if len(dataset.recording_ids) > 1:
        rows += [table_row("all", task, scored, config.seed) for task, scored in tallies.items()]
    run_dir = Path(config.run_dir)
    write_json(
        run_dir / "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "metric": "bits/spike",
            "rows": rows,
        },
    )
    queries.save(run_dir)
    save_figure(task_bars(rows), run_dir / "figures" / "tasks")
    return run_dir


def _scored(
    config: ScoreConfig, task: str, model: NeuroBridgeModel, recording: SplitWindows
) -> dict[str, dict[str, Tally]]:
    """Tallies of each row that a task has for one recording."""
    if task == "few_shot":
        of_shots = score_few_shot(config, model, recording)
        return {f"few_shot, {shots} windows": scored for shots, scored in of_shots.items()}
    return {task: score_task(config, task, model, recording)}
