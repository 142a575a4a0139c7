"""The plan's go/no-go points: which of them hold, by the runs of a workspace."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neurobridge_tb.errors import InputError
from neurobridge_tb.report.report_tables import lower_is_better
from neurobridge_tb.report.result_names import is_baseline, is_ceiling, is_model
from neurobridge_tb.report.runs import Run, find_runs, reading_results
from neurobridge_tb.scoring.decoding.row_decoding import LATENTS, RANDOM

Row = dict[str, Any]
_JOBS = Path("experiments") / "jobs"
_TOP5 = {"stage 1": 0.15, "stage 2": 0.30}


def check(workspace: str | Path) -> list[Row]:
    """A row for each point and each run that it can be told from; one that says so where there is none.

    Args:
        workspace: A folder with runs in it; those of its experiments count too.

    Returns:
        Rows of ``point``, ``run``, ``value`` (with its interval where the run has one), ``bar`` and ``holds``: "yes",
        "no", "not sure" where the interval holds the bar, or "no run".

    Raises:
        InputError: There is no run at all.
    """
    root = Path(workspace)
    runs = [run for run in find_runs(root) if run.result and run.job != "experiment"]
    for jobs in (root / _JOBS, root / "jobs"):
        runs += [run for run in (find_runs(jobs) if jobs.is_dir() else []) if run.result and run not in runs]
    if not runs:
        raise InputError(
            expected="a workspace with finished runs", found=f"none in {root}", fix="Run `neurobridge demo` first."
        )
    with reading_results(root):
        points = {
            "velocity: R2 of latents above random weights'": list(_decoded(runs, velocity=True)),
            "probe: latents above random weights'": list(_decoded(runs, velocity=False)),
            "masked loss better than the training mean": list(_masked(runs)),
            "top-5 after stage 1 above 15 %": list(_top5(runs, "stage 1")),
            "top-5 after stage 2 above 30 %": list(_top5(runs, "stage 2")),
            "pictures above their baselines": list(_pictures(runs)),
        }
    rows = []
    for point, found in points.items():
        its = found or [{"run": "–", "value": "–", "bar": "–", "holds": "no run"}]
        rows += [{"point": point, **row} for row in its]
    return rows


def _row(run: Run, what: str, score: Any, bar: float, bar_name: str, *, lower: bool = False) -> Row:
    value = float(score["value"] if isinstance(score, dict) else score)
    bounds = (score["low"], score["high"]) if isinstance(score, dict) and "low" in score else (value, value)
    worst, best = (bounds[1], bounds[0]) if lower else bounds
    sign = -1 if lower else 1
    holds = "yes" if sign * worst > sign * bar else "no" if sign * best <= sign * bar else "not sure"
    interval = f" ({bounds[0]:.3f}-{bounds[1]:.3f})" if bounds[0] != bounds[1] else ""
    simulated = ", simulated" if run.result.get("simulated") else ""
    return {
        "run": f"{run.name}{simulated}",
        "value": f"{what} {value:.3f}{interval}",
        "bar": f"{bar_name} {bar:.3f}",
        "holds": holds,
    }


def _decoded(runs: list[Run], *, velocity: bool) -> Iterator[Row]:
    """Of `decode`: latents beside those of random weights."""
    for run in runs:
        if run.job != "decode" or ("velocity" in str(run.result.get("target"))) != velocity:
            continue
        scores = {row.get("decoder"): row for row in run.result["rows"]}
        if LATENTS in scores and RANDOM in scores:
            measure = next(name for name in scores[LATENTS] if isinstance(scores[LATENTS][name], dict))
            bar = scores[RANDOM][measure]["value"]
            yield _row(run, f"{run.result['target']}, {measure}", scores[LATENTS][measure], bar, "random weights")


def _masked(runs: list[Run]) -> Iterator[Row]:
    """Of `pretrain` and `adapt`: each scheme beside the training mean, whose bits/spike are 0."""
    for run in runs:
        if run.job in ("pretrain", "adapt"):
            for row in run.result.get("rows", ()):
                bar = row.get("baselines", {}).get("training mean", 0.0)
                what = f"{row['scheme']}, {row['metric']}"
                yield _row(run, what, row["model"], bar, "training mean", lower=lower_is_better(row["metric"]))


def _top5(runs: list[Run], stage: str) -> Iterator[Row]:
    """Of `evaluate`: repeat averages, from activity to image."""
    for run in runs:
        for row in run.result.get("rows", ()) if run.job == "evaluate" else ():
            ours = row["model"].startswith(f"NeuroBridge, {stage}")
            if ours and (row["trials"], row["direction"]) == ("repeat average", "neural to image"):
                yield _row(run, row["model"], row["top5"], _TOP5[stage], "bar")


def _pictures(runs: list[Run]) -> Iterator[Row]:
    """Of `reconstruct`: each metric of the model beside the best baseline's."""
    for run in runs:
        rows = run.result.get("rows", ()) if run.job == "reconstruct" else ()
        baselines = [row for row in rows if is_baseline(row["backend"])]
        for row in rows:
            if not is_model(row["backend"]) or is_ceiling(row["backend"]):
                continue
            for metric, value in row["metrics"].items():
                rivals = {its["backend"]: its["metrics"][metric] for its in baselines if metric in its["metrics"]}
                if rivals:
                    lower = lower_is_better(metric)
                    best = (min if lower else max)(rivals, key=lambda name: _number(rivals[name]))
                    yield _row(run, f"{row['backend']}, {metric}", value, _number(rivals[best]), best, lower=lower)


def _number(score: Any) -> float:
    return float(score["value"] if isinstance(score, dict) else score)
