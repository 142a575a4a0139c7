"""The plan's go/no-go points: which of them hold, by the runs of a workspace."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.plan import PLAN, read_plan
from neurobridge_tb.report.report_tables import lower_is_better
from neurobridge_tb.report.result_names import is_baseline, is_ceiling, is_model
from neurobridge_tb.report.runs import Run, find_runs, reading_results
from neurobridge_tb.scoring.decoding.row_decoding import LATENTS, RANDOM

Row = dict[str, Any]
_JOBS = Path("experiments") / "jobs"
_TOP5 = {"stage 1": 0.15, "stage 2": 0.30}
_NONE = {"measure": "–", "run": "–", "value": "–", "bar": "–", "holds": "no run", "holds in": "–"}


@dataclass(frozen=True)
class Score:
    """What a run says of a point of the plan.

    Attributes:
        run: Its name.
        simulated: Whether its recordings are.
        measure: What was measured, and of what.
        value: The figure.
        low: Lower end of its interval; the value where the run has none.
        high: Upper end.
        bar: What it has to pass.
        bar_name: What that is.
        lower_is_better: Whether to pass is to be below.
    """

    run: str
    simulated: bool
    measure: str
    value: float
    low: float
    high: float
    bar: float
    bar_name: str
    lower_is_better: bool

    @property
    def margin(self) -> float:
        """How far the end of the interval that is nearer to the bar, or beyond it, lies above the bar."""
        return self.bar - self.high if self.lower_is_better else self.low - self.bar

    @property
    def holds(self) -> str:
        """``yes``, ``no``, or ``not sure`` where the interval holds the bar."""
        best = self.bar - self.low if self.lower_is_better else self.high - self.bar
        return "yes" if self.margin > 0 else "no" if best <= 0 else "not sure"


def check(workspace: str | Path) -> list[Row]:
    """Which points of the plan hold: a row for each point and measure, simulated runs apart from others.

    Args:
        workspace: A folder with runs in it; those of its experiments count too.

    Returns:
        Rows of ``point``, ``measure``, ``holds`` ("yes", "no", "not sure" where the interval holds the bar, or "no
        run"), ``value`` (with its interval where the run has one), ``bar``, ``run``: the one that passes the bar by
        most or is nearest to it, and ``holds in``: in how many of the runs.

    Raises:
        InputError: There is no run at all.
    """
    root = Path(workspace)
    runs = [run for run in find_runs(root) if run.result]
    for jobs in (root / _JOBS, root / "jobs"):
        runs += [run for run in (find_runs(jobs) if jobs.is_dir() else []) if run.result and run not in runs]
    if not any(run.job != "experiment" for run in runs):
        raise InputError(
            expected="a workspace with finished runs", found=f"none in {root}", fix="Run `neurobridge demo` first."
        )
    names = _names_of_jobs(runs)
    runs = [replace(run, name=names.get(run.folder.absolute(), run.name)) for run in runs]
    with reading_results(root):
        points = {
            "velocity decoded better than from random weights": list(_decoded(runs, velocity=True)),
            "probe better than of random weights": list(_decoded(runs, velocity=False)),
            "masked loss better than the training mean": list(_masked(runs)),
            "top-5 after stage 1 above 15 %": list(_top5(runs, "stage 1")),
            "top-5 after stage 2 above 30 %": list(_top5(runs, "stage 2")),
            "pictures above their baselines": list(_pictures(runs)),
        }
    return [{"point": point, **row} for point, found in points.items() for row in _rows(found) or [_NONE]]


def _names_of_jobs(runs: list[Run]) -> dict[Path, str]:
    """Jobs of experiments in words, by their folder."""
    plans = [read_plan(run.folder) for run in runs if run.job == "experiment" and (run.folder / PLAN).is_file()]
    return {
        plan.jobs / key: f"{plan.name}: {plan.expansion.name_of(key)}" for plan in plans for key in plan.expansion.jobs
    }


def _rows(scores: list[Score]) -> list[Row]:
    groups: dict[tuple[str, bool], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.measure, score.simulated), []).append(score)
    rows = []
    for (measure, simulated), its in groups.items():
        best = max(its, key=lambda score: score.margin)
        interval = f" ({best.low:.3f}-{best.high:.3f})" if best.low != best.high else ""
        rows.append(
            {
                "measure": f"{measure}{', simulated' if simulated else ''}",
                "holds": best.holds,
                "value": f"{best.value:.3f}{interval}",
                "bar": f"{best.bar_name} {best.bar:.3f}",
                "run": best.run,
                "holds in": f"{sum(score.holds == 'yes' for score in its)} of {len(its)} runs",
            }
        )
    return rows


def _score(run: Run, measure: str, score: Any, bar: float, bar_name: str, *, lower: bool = False) -> Score:
    value = _number(score)
    low, high = (score["low"], score["high"]) if isinstance(score, dict) and "low" in score else (value, value)
    return Score(run.name, bool(run.result.get("simulated")), measure, value, low, high, bar, bar_name, lower)


def _decoded(runs: list[Run], *, velocity: bool) -> Iterator[Score]:
    """Of `decode`: latents beside those of random weights."""
    for run in runs:  # one of several targets has a run for each below it
        target = run.result.get("target", "") if run.job == "decode" else ""
        if not target or ("velocity" in target) != velocity:
            continue
        scores = {row.get("decoder"): row for row in run.result["rows"]}
        if LATENTS in scores and RANDOM in scores:
            measure = next(name for name in scores[LATENTS] if isinstance(scores[LATENTS][name], dict))
            bar = scores[RANDOM][measure]["value"]
            yield _score(run, f"{target}, {measure}", scores[LATENTS][measure], bar, "random weights")


def _masked(runs: list[Run]) -> Iterator[Score]:
    """Of `pretrain` and `adapt`: each scheme beside the training mean, whose bits/spike are 0."""
    for run in runs:
        if run.job in ("pretrain", "adapt"):
            for row in run.result.get("rows", ()):
                bar = row.get("baselines", {}).get("training mean", 0.0)
                what = f"{row['scheme']}, {row['metric']}"
                yield _score(run, what, row["model"], bar, "training mean", lower=lower_is_better(row["metric"]))


def _top5(runs: list[Run], stage: str) -> Iterator[Score]:
    """Of `evaluate`: repeat averages, from activity to image."""
    for run in runs:
        for row in run.result.get("rows", ()) if run.job == "evaluate" else ():
            ours = row["model"].startswith(f"NeuroBridge, {stage}")
            if ours and (row["trials"], row["direction"]) == ("repeat average", "neural to image"):
                yield _score(run, row["model"], row["top5"], _TOP5[stage], "bar")


def _pictures(runs: list[Run]) -> Iterator[Score]:
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
                    yield _score(run, f"{row['backend']}, {metric}", value, _number(rivals[best]), best, lower=lower)


def _number(score: Any) -> float:
    return float(score["value"] if isinstance(score, dict) else score)
