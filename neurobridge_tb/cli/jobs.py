"""One command for each job: settings as NAME=VALUE."""

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
        for part, lines in setting_lines(kind).items():
            with formatter.section(part or "Settings"):
                formatter.write_dl(lines, col_max=44)

    def _call(self, arguments: tuple[str, ...]) -> None:
        say(f"neurobridge {self.name}: loading")
        from neurobridge_tb.engine.config import compose_config
        from neurobridge_tb.report.terminal_table import print_rows

        config = compose_config(self.job, arguments)
        result = getattr(import_module(f"neurobridge_tb.jobs.{self.job}"), self.job)(config)
        print_rows(result / "metrics.json")
        click.echo(f"Results lie in {result}")


def job_commands() -> list[click.Command]:
    """The command of every job."""
    return [JobCommand(job) for job in JOBS]
