"""`neurobridge import`: recordings from the files that labs have."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurobridge_tb.cli.options import FOLDER, SEED
from neurobridge_tb.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from neurobridge_tb.datasets.readers import Choices, Notes

_SHARED: list[Callable] = [
    click.option("--out", type=FOLDER, required=True, help="Folder of the recordings; one HDF5 file a source."),
    click.option("--session", help="Name of the recording, of one source.  [default: the source's name]"),
    click.option("--subject", help="Name of the animal or person.  [default: what the source says]"),
    click.option("--brainset", default="imported", show_default=True, help="Name of the collection."),
    click.option(
        "--where", multiple=True, metavar="CONDITION", help="Units to take, e.g. quality=good, snr>2; all must hold."
    ),
    click.option("--area", metavar="COLUMN", help="Column of units that names the area.  [default: the usual names]"),
    click.option("--leave", multiple=True, metavar="NAME", help="Table or series to leave out."),
    click.option("--presentations", metavar="TABLE.COLUMN", help="Column that names the image that was shown."),
    click.option("--count-in", type=float, metavar="S", help="Count spikes in bins of so many s, for alignment."),
    click.option(
        "--split", default="blocks", show_default=True, metavar="blocks|TABLE",
        help="Splits: blocks of time with gaps, or the rows of a table.",
    ),
    click.option("--shares", nargs=3, type=float, default=(0.7, 0.1, 0.2), help="[default: 0.7 0.1 0.2]"),
    click.option("--gap", default=1.0, show_default=True, help="Seconds left out between blocks of different splits."),
    click.option("--block", type=float, help="Length of a block in s.  [default: a fiftieth, 10 to 120 s]"),
    click.option("--seed", type=SEED, default=0, show_default=True, help="Which blocks or rows go where."),
]  # fmt: skip


@click.group("import")
def import_files() -> None:
    """Recordings from NWB, Phy, SpikeInterface, MATLAB, ALF or NLB files.

    Prints what was taken, what was left and what was assumed. `neurobridge import KIND --help` tells the options.

    Example: neurobridge import nwb sub-4_ses-4.nwb --out processed/mtl
    """


def _source_command(name: str, text: str, *options: Callable) -> Callable:
    """Add a command that reads each source with the decorated function and writes one recording for each."""

    def add(read: Callable[..., Any]) -> click.Command:
        def command(sources: tuple[str, ...], out: Path, **given: Any) -> None:
            own = {option: given.pop(option) for option in list(given) if option not in _NAMES}
            _write_all(sources, out, given, lambda source, choices, notes: read(source, choices, notes, **own))

        command.__doc__ = text
        command = click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")(command)
        for option in [*reversed(options), *reversed(_SHARED)]:
            command = option(command)
        return import_files.command(name)(command)

    return add


_NAMES = "session subject brainset where area leave presentations count_in split shares gap block seed".split()


def _write_all(
    sources: tuple[str, ...], out: Path, given: dict[str, Any], read: Callable[[str, "Choices", "Notes"], Any]
) -> None:
    from rich.console import Console

    from neurobridge_tb.datasets import save_recording
    from neurobridge_tb.datasets.readers import Choices, Notes, SplitPlan

    by = given.pop("split")
    plan = SplitPlan(by, tuple(given.pop("shares")), *(given.pop(name) for name in ("gap", "block", "seed")))
    choices = Choices(**given, split=plan)
    if choices.session is not None and len(sources) > 1:
        raise InputError(expected="one source for --session", found=f"{len(sources)}", fix="Import them one by one.")
    console = Console()
    written: dict[Path, str] = {}
    for source in sources:
        console.print(f"{source}: reading …", style="bold", highlight=False, markup=False)
        notes = Notes()
        recording = read(source, choices, notes)
        path = out / f"{recording.session.id}.h5"
        if path in written:
            raise InputError(
                expected="sources of different names",
                found=f"{written[path]} and {source}, both {recording.session.id}",
                fix="Import them one by one, each with --session NAME.",
            )
        if path.exists():
            notes.assumed.append(f"{path.name} was there and is replaced; another recording needs --session NAME")
        save_recording(recording, path)
        written[path] = source
        _print_notes(console, notes, path)


def _print_notes(console: "Console", notes: "Notes", path: Path) -> None:
    for title, lines in (("Taken", notes.taken), ("Left", notes.left), ("Assumed", notes.assumed)):
        if lines:
            console.print(f"[bold]{title}[/]")
        for line in lines:
            console.print(f"  {line}", highlight=False, markup=False)
    console.print(f"The recording lies in {path}", highlight=False, markup=False, soft_wrap=True)


@_source_command(
    "nwb",
    "NWB files: sorted units, or calcium traces.\n\n"
    "A file on disk, or its address (https://…), of which only what is needed is fetched.\n\n"
    "Example: neurobridge import nwb sub-4_ses-4.nwb --out processed/mtl",
    click.option("--values", metavar="NAME", help="Series of values (time, units) to take in place of spikes."),
)
def _nwb(source: str, choices: "Choices", notes: "Notes", **own: Any) -> Any:
    from neurobridge_tb.datasets.readers import read_nwb

    return read_nwb(source, choices, notes=notes, **own)


@_source_command(
    "phy",
    "Kilosort or Phy folders.\n\nExample: neurobridge import phy sorted --sampling-rate 30000 --out processed/probe",
    click.option("--sampling-rate", type=float, metavar="HZ", help="Needed where there is no params.py."),
)
def _phy(source: str, choices: "Choices", notes: "Notes", **own: Any) -> Any:
    from neurobridge_tb.datasets.readers import read_phy

    return read_phy(source, choices, notes=notes, **own)


@_source_command(
    "spikeinterface",
    "Sortings, analyzers, and formats that it reads.\n\n"
    "Example: neurobridge import spikeinterface analyzer --where 'isi_violations_ratio<0.5' --out processed/probe",
    click.option(
        "--format", "file_format", metavar="NAME", help="Of spikeinterface.extractors, e.g. blackrock_sorting."
    ),
)
def _spikeinterface(source: str, choices: "Choices", notes: "Notes", **own: Any) -> Any:
    from neurobridge_tb.datasets.readers import read_spikeinterface

    return read_spikeinterface(source, choices, notes=notes, **own)


@_source_command(
    "alf",
    "ALF folders, as the IBL writes them.\n\nExample: neurobridge import alf SUBJECT/DATE/001/alf --out processed/ibl",
)
def _alf(source: str, choices: "Choices", notes: "Notes") -> Any:
    from neurobridge_tb.datasets.readers import read_alf

    return read_alf(source, choices, notes=notes)


@_source_command(
    "matlab",
    "A folder of rasters, or arrays of a .mat file.\n\n"
    "Example: neurobridge import matlab reach.mat --counts Y --bin-size 0.05 --behavior hand=X --out processed/reach",
    click.option("--spikes", metavar="NAME", help="Spike times: a cell a unit, or all with --clusters."),
    click.option("--clusters", metavar="NAME", help="The unit of each spike."),
    click.option("--sampling-rate", type=float, metavar="HZ", help="Where spike times are sample numbers."),
    click.option("--counts", metavar="NAME", help="Spike counts (bins, units)."),
    click.option("--mua", metavar="NAME", help="Other values (bins, units)."),
    click.option("--bin-size", type=float, metavar="S", help="Bin width of counts or values; of rasters, 0.001."),
    click.option("--behavior", multiple=True, metavar="NAME=ARRAY", help="Series with a row a bin, or ARRAY_times."),
    click.option("--table", "tables", multiple=True, metavar="NAME=STRUCT", help="Columns, with start and end in s."),
)
def _matlab(source: str, choices: "Choices", notes: "Notes", behavior: Any, tables: Any, **own: Any) -> Any:
    from neurobridge_tb.datasets.readers import read_matlab

    return read_matlab(source, choices, notes=notes, behavior=_pairs(behavior), tables=_pairs(tables), **own)


@import_files.command("nlb")
@click.argument("train", metavar="TRAIN.nwb")
@click.argument("test", metavar="[TEST.nwb]", required=False)
@click.option("--out", type=FOLDER, required=True, help="Folder of the recording.")
@click.option("--session", help="Name of the recording.  [default: mc_maze, mc_maze_large, …, by the file's name]")
def _nlb(train: str, test: str | None, out: Path, session: str | None) -> None:
    """MC_Maze, of the Neural Latents Benchmark.

    TRAIN.nwb holds the training trials, TEST.nwb the test trials.

    \b
    Example: neurobridge import nlb sub-Jenkins_ses-small_desc-train_behavior+ecephys.nwb \\
               sub-Jenkins_ses-small_desc-test_ecephys.nwb --out processed/nlb
    """
    from rich.console import Console

    from neurobridge_tb.datasets import save_recording
    from neurobridge_tb.datasets.readers import Notes, read_mc_maze

    notes = Notes()
    recording = read_mc_maze(train, test, session=session, notes=notes)
    path = out / f"{recording.session.id}.h5"
    save_recording(recording, path)
    _print_notes(Console(), notes, path)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    for pair in given:
        if not all(pair.partition("=")):
            raise InputError(expected="NAME=ARRAY", found=repr(pair), fix="Name the series and its array.")
    return {name: array for name, _, array in (pair.partition("=") for pair in given)}
