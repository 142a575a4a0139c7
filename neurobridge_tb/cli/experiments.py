"""Experiments: run a recipe, and tables and curves over runs."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from neurobridge_tb.cli.options import FILE, FOLDER
from neurobridge_tb.errors import InputError

_FORMATS = ["markdown", "csv", "latex"]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--dry-run", is_flag=True, help="Print the jobs, what is done, and the expected time; run nothing.")
def experiment(name: str, arguments: tuple[str, ...], dry_run: bool) -> None:
    """Run all jobs of a recipe, each once, and make its table. Run again to go on where it was cut.

    NAME is a recipe of the package (pretrained, areas, time_windows, masks, scaling, target_layers, factors, sessions,
    each_session, mixing) or the path of your own. NAME=VALUE gives a setting of the recipe, levels of a factor,
    seeds=[0,1,2], a setting of a step (align.stage1.epochs=3), workspace=FOLDER, or how it runs:
    launcher=basic|joblib|ray|submitit_local|submitit_slurm, launcher.workers=2, launcher.cpus, launcher.gpus,
    launcher.memory_gb, launcher.minutes, launcher.address, launcher.slurm.partition=gpu.

    Example: neurobridge experiment pretrained root=processed embeddings=embeddings.h5 launcher=joblib
    """
    from neurobridge_tb.experiments.experiment import run_experiment, settle_experiment, summarise
    from neurobridge_tb.experiments.plan import dry_run as lines_of
    from neurobridge_tb.experiments.recipe import read_recipe
    from neurobridge_tb.report.terminal_table import print_rows

    command = shlex.join(["neurobridge", "experiment", name, *arguments])
    plan, launcher = settle_experiment(read_recipe(name), parse_arguments(arguments), command)
    if dry_run:
        click.echo("\n".join(lines_of(plan, launcher.at_once or len(plan.expansion.jobs))))
        return
    run_experiment(plan, launcher, click.echo)
    print_rows(summarise(plan) / "metrics.json")
    click.echo(f"Results lie in {plan.folder}")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--format", "form", type=click.Choice(_FORMATS), default="markdown", show_default=True)
@click.option("--measure", "measures", multiple=True, help="Number of a row to show, e.g. top1; may be repeated.")
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Rows to take; may be repeated.")
@click.option("--rows", default=None, help="Which list of rows of the results; default: rows.")
@click.option("--compare", default=None, help="Factor whose levels are compared; default: the recipe's, or run.")
@click.option("--lower-is-better", is_flag=True, help="The measure falls as results get better.")
@click.option("--out", type=FILE, default=None, help="File to write; default: the terminal.")
def table(runs: tuple[Path, ...], form: str, out: Path | None, **options: Any) -> None:
    """A table over runs: means over seeds, intervals, paired differences, and which is best.

    RUNS is the folder of an experiment, or folders of runs: those whose names differ in seed0, seed1, … only are one
    cell.
    """
    from neurobridge_tb.experiments.table import FORMATS
    from neurobridge_tb.files import check_replaceable, write_aside

    text = FORMATS[form](_rows(runs, **options))
    if out is None:
        click.echo(text, nl=False)
        return
    head = text.partition("\n")[0]
    check_replaceable(out, lambda old: old.read_text(encoding="utf-8").startswith(head), "a table of these columns")
    with write_aside(out) as aside:
        aside.write_text(text, encoding="utf-8")
    click.echo(f"Table: {out}")


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--x", default=None, help="Factor on the horizontal axis; default: the recipe's.")
@click.option("--measure", "measures", multiple=True, help="Number to show; default: the recipe's.")
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Rows to take; may be repeated.")
def plot(folder: Path, x: str | None, measures: tuple[str, ...], where: tuple[str, ...]) -> None:
    """Curves of an experiment, e.g. over the share of the data or over time windows, as SVG and PNG."""
    from neurobridge_tb.experiments.measured import measures_of, result_of, sources_of_plan
    from neurobridge_tb.experiments.plan import read_plan
    from neurobridge_tb.experiments.plot import save_figure

    plan = read_plan(folder)
    rows = _rows((folder,), measures=measures, where=where)
    results = [result_of(source.folder) for source in sources_of_plan(plan)]
    factor = x or plan.plot or next(iter(plan.expansion.cells[0].levels), "")
    for measure in measures or plan.table.measures or measures_of(rows)[:1]:
        click.echo(f"Figure: {save_figure(rows, factor, measure, folder / 'figures', results)}")


@click.command("check-plan")
@click.argument("workspace", type=FOLDER)
def check_plan(workspace: Path) -> None:
    """Which of the plan's go/no-go points hold, by the runs of a workspace, with figures."""
    from neurobridge_tb.experiments.check_plan import check
    from neurobridge_tb.report.terminal_table import print_table

    print_table(check(workspace))


def parse_arguments(arguments: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE by name, values read as YAML.

    Raises:
        InputError: Something else, or a name twice.
    """
    import yaml

    found: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name.startswith("-") or name in found:
            raise InputError(
                expected="NAME=VALUE, each name once", found=argument, fix="See `neurobridge experiment --help`."
            )
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(expected=f"a value for {name}", found=value, fix="Quote it.") from error
    return found


def _rows(runs: tuple[Path, ...], **options: Any) -> list[dict[str, Any]]:
    from dataclasses import replace

    from neurobridge_tb.experiments import measured
    from neurobridge_tb.experiments.plan import PLAN, read_plan
    from neurobridge_tb.experiments.recipe import TableSpec
    from neurobridge_tb.experiments.table import table_rows

    if len(runs) == 1 and (runs[0] / PLAN).is_file():
        plan = read_plan(runs[0])
        spec, sources = plan.table, measured.sources_of_plan(plan)
    else:
        spec, sources = TableSpec(compare="run"), measured.sources_of_folders(list(runs))
    where = parse_arguments(options.pop("where"))
    given = {name: value for name, value in options.items() if value}
    spec = replace(spec, where={**spec.where, **where}, **given)
    return table_rows(measured.read_measured(sources, spec), spec)
