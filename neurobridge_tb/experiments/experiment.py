"""An experiment from its arguments to its table: plan, run what is missing, write down what came out."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neurobridge_tb.errors import InputError, first_line
from neurobridge_tb.experiments.expansion import expand
from neurobridge_tb.experiments.inputs import Inputs
from neurobridge_tb.experiments.job import Job
from neurobridge_tb.experiments.launchers import LauncherConfig, launch
from neurobridge_tb.experiments.measured import measures_of, read_measured, result_of, sources_of_plan
from neurobridge_tb.experiments.outcome import forget_outcome, outcome_of, run_job
from neurobridge_tb.experiments.plan import Plan, failures, plan_of
from neurobridge_tb.experiments.plot import save_figure
from neurobridge_tb.experiments.recipe import Recipe, override
from neurobridge_tb.experiments.run import drive
from neurobridge_tb.experiments.table import table_rows
from neurobridge_tb.files import write_json
from neurobridge_tb.progress import duration

WORKSPACE = "experiments"
_INTERVALS = (
    "Intervals: 95 %, of seeds and queries together (bootstrap) where runs tell hits query by query, else of seeds "
    "(Student's t). Differences are paired by seed, and by query. Nothing is corrected for the number of comparisons."
)


def settle_experiment(recipe: Recipe, arguments: Mapping[str, Any], command: str) -> tuple[Plan, LauncherConfig]:
    """The plan and the launcher of a call.

    Args:
        recipe: As it was read.
        arguments: ``workspace``, ``launcher``, ``launcher.SETTING``, and what :func:`override` takes.
        command: The call, to be noted.

    Raises:
        InputError: As :func:`override` and :func:`expand` do, of a launcher's settings, and of a folder that is taken.
    """
    rest = dict(arguments)
    workspace = Path(str(rest.pop("workspace", WORKSPACE)))
    launcher = _launcher({name: rest.pop(name) for name in list(rest) if name.partition(".")[0] == "launcher"})
    recipe, inputs = override(recipe, rest), Inputs(workspace / "inputs.json")
    expansion = expand(recipe, inputs)
    plan = plan_of(recipe, expansion, workspace, command)
    plan.check_folder()
    inputs.save()
    return plan, launcher


def run_experiment(plan: Plan, launcher: LauncherConfig, say: Callable[[str], None] = print) -> dict[str, str]:
    """Run the jobs of a plan that are not done; returns the state of each."""
    plan.save()
    total, ended = len(plan.expansion.jobs), 0

    def tell(key: str, state: str) -> None:
        nonlocal ended
        its = outcome_of(plan.jobs / key)
        ended += not state.endswith("again")
        facts = f"{state} in {duration(its.seconds)}" if its else state
        reason = f": {its.error.splitlines()[0]}" if its and its.error else ""
        say(f"[{before + ended}/{total}] {plan.expansion.name_of(key)}: {facts}{reason}")

    def is_done(key: str) -> bool | None:
        its = outcome_of(plan.jobs / key)
        return None if its is None else its.done

    outcomes = plan.outcomes()
    before = sum(its is not None and its.done for its in outcomes.values())
    for key, its in outcomes.items():  # what failed is tried again
        if its is not None and not its.done:
            forget_outcome(plan.jobs / key)
    if before:
        say(f"{before} of {total} jobs were done before")
    with launch(launcher, plan.folder.parent / "launcher") as submit:

        def hand_in(job: Job) -> Any:
            threads = None if launcher.name == "basic" else launcher.cpus
            return submit(run_job, job, plan.jobs, threads)

        return drive(plan.expansion.jobs, hand_in, is_done, at_once=launcher.at_once, say=tell)


def summarise(plan: Plan) -> Path:
    """Write ``metrics.json``, the table of an experiment, and its figure; returns its folder.

    Raises:
        InputError: No run that the table is about is done.
    """
    sources = sources_of_plan(plan)
    rows = table_rows(read_measured(sources, plan.table), plan.table)
    results = [result_of(source.folder) for source in sources]
    datasets = dict.fromkeys(str(result["dataset"]) for result in results if "dataset" in result)
    content = {
        "job": "experiment",
        "dataset": "; ".join(datasets),
        "simulated": any(result.get("simulated") for result in results),
        "command": plan.command,
        "target": plan.question,
        "rows": rows,
        "notes": [_INTERVALS, *failures(plan)],
        "seconds": sum(its.seconds for its in plan.outcomes().values() if its is not None and its.done),
    }
    write_json(plan.folder / "metrics.json", content)
    if plan.plot:
        save_figure(rows, plan.plot, measures_of(rows)[0], plan.folder / "figures", results)
    return plan.folder


def _launcher(settings: Mapping[str, Any]) -> LauncherConfig:
    known = [field.name for field in fields(LauncherConfig) if field.name != "name"]
    given: dict[str, Any] = {"slurm": {}}
    for name, value in settings.items():
        _, _, inner = name.partition(".")
        if not inner:
            given["name"] = value
        elif inner.startswith("slurm."):
            given["slurm"][f"slurm_{inner.removeprefix('slurm.').removeprefix('slurm_')}"] = value
        elif inner in known and inner != "slurm":
            given[inner] = value
        else:
            raise InputError(
                expected=f"launcher.{{{', '.join(known)}.NAME}}", found=name, fix="See docs/cluster.md for each."
            )
    try:
        return cast(LauncherConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LauncherConfig), given)))
    except OmegaConfBaseException as error:
        raise InputError(
            expected="values that fit launcher and launcher.SETTING",
            found=f"{settings} ({first_line(error)})",
            fix="See docs/cluster.md for each.",
        ) from error
