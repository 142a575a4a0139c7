"""The `neurobridge` command."""

import sys

import click

from neurobridge_tb import __version__
from neurobridge_tb.cli.data import bind, simulate, simulate_allen, simulate_ibl, validate
from neurobridge_tb.cli.demo import demo, info, rate, report
from neurobridge_tb.cli.experiments import check_plan, experiment, plot, table
from neurobridge_tb.cli.heap import restart_with_bounded_heap
from neurobridge_tb.cli.hub import models, push
from neurobridge_tb.cli.import_files import import_files
from neurobridge_tb.cli.jobs import JobCommand, job_commands
from neurobridge_tb.cli.signals import end_with_a_sentence
from neurobridge_tb.errors import InputError, NeuroBridgeError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Learn from spikes and multi-unit activity, and turn it into pictures.

    \b
    The main job, step by step:
      neurobridge simulate      raw files of a virtual monkey (or use your own recordings)
      brainsets prepare tvsd    raw files -> HDF5
      neurobridge import        NWB, Phy, SpikeInterface, MATLAB, ALF, NLB -> HDF5
      neurobridge validate      what is in an HDF5 recording, and what is wrong with it
      neurobridge images        does each image that was shown have its file?
      neurobridge pretrain      masked pretraining of the encoder
      neurobridge adapt         the same encoder for new recordings
      neurobridge score         how well it fills in hidden units, areas and the future
      neurobridge decode        what its latents tell of stimuli, choices and behaviour
      neurobridge latents       its latents of whole recordings, as arrays and pictures
      neurobridge finetune      train it on a behaviour, from many labels or few
      neurobridge forecast      spikes up to a second ahead, also of units never seen
      neurobridge submit-nlb    rates for the Neural Latents Benchmark
      neurobridge submit-bwb    predictions for BrainWideBench
      neurobridge embed         embeddings of the stimulus images
      neurobridge align         neural activity -> image embedding (two stages)
      neurobridge evaluate      retrieval, beside its baselines
      neurobridge train-decoder a decoder of your own photos
      neurobridge reconstruct   pictures, beside their baselines
      neurobridge rate          a blind test of the pictures for people, on one page
      neurobridge report        one HTML page of it all
      neurobridge models        the models that come with the package
      neurobridge push          a model and its card to the Hugging Face hub
    \b
    Many runs:
      neurobridge experiment    a recipe of jobs over seeds, each run once, on a laptop or a cluster
      neurobridge table         means, intervals and paired differences over runs
      neurobridge plot          curves of an experiment
      neurobridge check-plan    which of the plan's go/no-go points hold
    `neurobridge demo` does all of it on simulated data.
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
    """Entry point: an error that NeuroBridge raises on purpose is printed without a traceback."""
    command = main.commands.get(sys.argv[1]) if len(sys.argv) > 1 else None
    runs_for_long = isinstance(command, JobCommand) or command in (demo, experiment)
    if runs_for_long and not {"-h", "--help"} & set(sys.argv):
        restart_with_bounded_heap()
        end_with_a_sentence()
    try:
        main()
    except NeuroBridgeError as error:
        click.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(2)
