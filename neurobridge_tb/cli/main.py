"""The `neurobridge` command."""

import io
import os
import sys
from contextlib import nullcontext
from typing import NoReturn

import click

from neurobridge_tb import __version__
from neurobridge_tb.cli.data import bind, simulate, simulate_allen, simulate_ibl, validate
from neurobridge_tb.cli.demo import demo, info, rate, report
from neurobridge_tb.cli.experiments import check_plan, experiment, plot, table
from neurobridge_tb.cli.heap import restart_with_bounded_heap
from neurobridge_tb.cli.hub import models, push
from neurobridge_tb.cli.import_files import import_files
from neurobridge_tb.cli.jobs import JobCommand, job_commands
from neurobridge_tb.cli.overview import Overview
from neurobridge_tb.cli.signals import end_with_a_sentence
from neurobridge_tb.errors import InputError, NeuroBridgeError, first_line, lacks_memory, printable, remedy


@click.group(cls=Overview, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="neurobridge")
def main() -> None:
    """Learn from spikes and multi-unit activity, and turn it into pictures.

    With a file of your own: `import`, `validate`, `pretrain`, `decode`, `report`, in this order. Without one:
    `neurobridge demo FOLDER`. `neurobridge COMMAND --help` lists what a command takes.
    """


@click.command(hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def probe(arguments: tuple[str, ...]) -> None:
    """The name that `neurobridge decode` had; it takes the same settings."""
    raise InputError(
        expected="`neurobridge decode`, which decodes any series and any column of a table",
        found="its old name, probe",
        fix=f"Run: neurobridge decode {' '.join(arguments)}",
    )


_FILES = [simulate, simulate_allen, simulate_ibl, import_files, validate, bind]
_MANY = [experiment, table, plot, check_plan]
for _command in [*job_commands(), *_FILES, *_MANY, demo, rate, report, models, push, info, probe]:
    main.add_command(_command)


def run() -> None:
    """Entry point: what NeuroBridge raises on purpose, and what the system refuses, is printed without a traceback."""
    _print_anyway()
    command = main.commands.get(sys.argv[1]) if len(sys.argv) > 1 else None
    runs_for_long = isinstance(command, JobCommand) or command in (demo, experiment)
    runs_for_long = runs_for_long and not {"-h", "--help"} & set(sys.argv)
    if runs_for_long:
        restart_with_bounded_heap()
    try:
        with end_with_a_sentence() if runs_for_long else nullcontext():
            main()
    except NeuroBridgeError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error}\n{remedy(error, 'Check the path, and whether you may write there.')}")
    except (MemoryError, RuntimeError) as error:
        if "DataLoader worker" in str(error) and "Caught" not in str(error):  # in which nothing was raised
            _fail(
                f"{first_line(error)}\nIt may lack memory, or shared memory (of a container: --shm-size).\n"
                "Lower loader.num_workers (0: none) or loader.batch_size, and run the same command again to go on."
            )
        if not lacks_memory(error):
            raise
        _fail(f"There is not enough memory: {first_line(error)}\nLower loader.batch_size, or take a smaller model.")


def _print_anyway() -> None:
    """What the encoding of a terminal or log lacks is replaced by "?"; what is printed to a closed output is lost."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _fail(text: str) -> NoReturn:
    click.secho(f"Error: {printable(text)}", fg="red", err=True)
    sys.exit(2)
