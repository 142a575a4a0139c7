"""One command for each job: settings as NAME=VALUE."""

import shlex
from importlib import import_module

import click

from neurobridge_tb.configs.catalog import JOBS
from neurobridge_tb.configs.listing import presets, setting_lines
from neurobridge_tb.progress import say


class JobCommand(click.Command):
    """A command whose arguments are settings; its help lists them."""

    def __init__(self, job: str):
        self.job = job
        super().__init__(
            job.replace("_", "-"),
            callback=self._call,
            params=[click.Argument(["arguments"], nargs=-1, metavar="[NAME=VALUE]...", type=click.UNPROCESSED)],
            help=JOBS[job].__doc__,
            context_settings={"ignore_unknown_options": True},  # an option is refused as a setting is
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        kind = JOBS[self.job]
        if choices := presets(kind):
            with formatter.section("Groups (choose with GROUP=PRESET; the default is in brackets)"):
                for group, names in choices.items():
                    formatter.write_text(f"{group}: {names}")
        with formatter.section("Many runs"):
            formatter.write_text(
                "--multirun: a comma makes several runs, e.g. seed=0,1,2; their folders lie below run_dir. "
                "launcher=NAME as in `neurobridge experiment`."
            )
        for part, lines in setting_lines(kind).items():
            with formatter.section(part or "Settings"):
                formatter.write_dl(lines, col_max=44)

    def _call(self, arguments: tuple[str, ...]) -> None:
        say(f"neurobridge {self.name}: loading")
        from neurobridge_tb.engine.config import compose_config
        from neurobridge_tb.processes import is_first_process
        from neurobridge_tb.report.runs import RESULTS
        from neurobridge_tb.report.terminal_table import print_rows

        if many := [argument for argument in arguments if argument in ("--multirun", "-m")]:
            self._call_many([argument for argument in arguments if argument not in many])
            return
        config = compose_config(self.job, arguments)
        result = getattr(import_module(f"neurobridge_tb.jobs.{self.job}"), self.job)(config)
        if is_first_process():
            for name in RESULTS:
                print_rows(result / name)
            click.echo(f"Results lie in {result}")

    def _call_many(self, arguments: list[str]) -> None:
        from neurobridge_tb.experiments.experiment import run_experiment, settle_experiment
        from neurobridge_tb.experiments.multirun import recipe_of_sweep

        recipe, rest = recipe_of_sweep(self.job, arguments)
        command = shlex.join(["neurobridge", self.name or "", "--multirun", *arguments])
        plan, launcher = settle_experiment(recipe, rest, command)
        states = run_experiment(plan, launcher, click.echo)
        for key in plan.expansion.jobs:
            click.echo(f"{plan.expansion.name_of(key)}: {states[key]}, {plan.jobs / key}")


def job_commands() -> list[click.Command]:
    """The command of every job."""
    return [JobCommand(job) for job in JOBS]
