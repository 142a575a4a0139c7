"""Commands on files: virtual recordings, validation, images."""

import sys
from pathlib import Path

import click

from neurobridge_tb.cli.options import FILE, FOLDER, IMAGES, SEED
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import visible
from neurobridge_tb.progress import progress_bars


@click.command()
@click.argument("workspace", type=FOLDER)
@click.option("--monkey", type=click.Choice(["F", "N"]), default="F", show_default=True)
@click.option("--images", type=IMAGES, default=None, help="Folder of photos to show; default: drawn images.")
@click.option("--concepts", default=250, show_default=True, help="Image classes.")
@click.option("--per-concept", default=12, show_default=True, help="Training images of each class.")
@click.option("--repeats", default=30, show_default=True, help="Presentations of each of the 100 test images.")
@click.option("--noise", default=1.0, show_default=True, help="Scale of the trial-to-trial noise.")
@click.option("--difficulty", default=0.0, show_default=True, help="How nonlinear the sites' responses are.")
@click.option("--trials", is_flag=True, help="Also write THINGS_MUA_trials.mat (300 ms a trial, large).")
@click.option("--seed", type=SEED, default=0, show_default=True)
def simulate(
    workspace: Path, monkey: str, images: Path | None, concepts: int, per_concept: int, repeats: int,
    noise: float, difficulty: float, trials: bool, seed: int,
) -> None:  # fmt: skip
    """Write the raw files of a virtual monkey, in the layout of TVSD.

    A virtual ventral stream (V1, V4, IT) looks at images; its responses are written to WORKSPACE/raw/tvsd, and the
    images, when they are drawn here, to WORKSPACE/images.
    """
    from neurobridge_tb.simulation import simulate_tvsd
    from neurobridge_tb.simulation.shown_images import class_photos

    source = None if images is None else class_photos(images, workspace / "photos.json")
    if source != images:
        click.echo(f"The photos lie in no class folders: each is a class. From here on, name {source} as the images.")
    with progress_bars() as progress:
        raw = simulate_tvsd(
            workspace, monkey=monkey, images_dir=source, n_concepts=concepts, images_per_concept=per_concept,
            n_repeats=repeats, noise=noise, difficulty=difficulty, trials=trials, seed=seed, progress=progress,
        )  # fmt: skip
    click.echo(f"Simulated raw files lie in {raw}")


@click.command("simulate-allen")
@click.argument("workspace", type=FOLDER)
@click.option(
    "--session", type=SEED, default=1, show_default=True, help="Number of the session; another one is another animal."
)
@click.option("--units", default=300, show_default=True, help="Units; about half pass the quality filter.")
@click.option("--seconds", default=1800.0, show_default=True, help="Length; published sessions last about 9,600.")
@click.option("--rate", default=4.0, show_default=True, help="Mean firing rate in Hz.")
@click.option("--seed", type=SEED, default=0, show_default=True)
def simulate_allen(workspace: Path, session: int, units: int, seconds: float, rate: float, seed: int) -> None:
    """Write a simulated session in the layout of Allen Visual Coding Neuropixels (NWB).

    Six probes in a mouse that runs and looks at scenes, movies, gratings, Gabor patches and flashes. The file goes to
    WORKSPACE/raw/allen_visual_coding_neuropixels_2019, where `brainsets prepare` looks for it.
    """
    from neurobridge_tb.simulation import simulate_allen_session

    with progress_bars() as progress:
        path = simulate_allen_session(
            workspace, session_id=session, n_units=units, seconds=seconds, rate=rate, seed=seed, progress=progress
        )
    click.echo(f"Simulated session lies in {path}")


@click.command("simulate-ibl")
@click.argument("workspace", type=FOLDER)
@click.option("--sessions", default=1, show_default=True, help="Sessions, each of another animal.")
@click.option("--probes", type=click.IntRange(1, 2), default=2, show_default=True)
@click.option("--units", default=24, show_default=True, help="Good units of each probe, besides as many others.")
@click.option("--seconds", default=600.0, show_default=True, help="Length; published sessions last about 4,500.")
@click.option("--seed", type=SEED, default=0, show_default=True)
def simulate_ibl(workspace: Path, sessions: int, probes: int, units: int, seconds: float, seed: int) -> None:
    """Write simulated sessions in the layout of IBL's Brain-Wide Map (ALF files).

    A mouse turns a wheel to answer stimuli on the left or right. The files go to
    WORKSPACE/raw/ibl_brain_wide_map_2025, where `brainsets prepare` looks for them.
    """
    from neurobridge_tb.simulation import simulate_ibl_sessions

    folders = simulate_ibl_sessions(
        workspace, n_sessions=sessions, n_probes=probes, n_units=units, seconds=seconds, seed=seed
    )
    click.echo(f"Simulated sessions lie in {', '.join(map(str, folders))}")


@click.command()
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
def validate(recordings: tuple[Path, ...]) -> None:
    """What recordings hold, and what is wrong with them: exit code 1 if anything is.

    FILE may also be a folder of recordings.
    """
    from rich.console import Console

    from neurobridge_tb.datasets.validation.examination import examine
    from neurobridge_tb.report.recording_tables import print_recording

    console, faulty, files = Console(), 0, list[Path]()
    for path in recordings:
        files += visible(path, "*.h5") if path.is_dir() else [path]
    if not files:
        raise InputError(
            expected="recordings (.h5 files)", found=f"none in {', '.join(map(str, recordings))}", fix="Name a file."
        )
    for path in files:
        contents, faults = examine(path)
        print_recording(console, path, contents, faults)
        faulty += any(fault.is_error for fault in faults)
    if faulty:
        console.print(f"[red]{faulty} of {len(files)} recordings have faults.")
        sys.exit(1)


@click.command("images")
@click.argument("folder", type=IMAGES)
@click.argument("recordings", nargs=-1, required=True, type=FILE, metavar="RECORDING...")
@click.option("--out", type=FILE, default=None, help="JSON file to write: the binding of image ids to files.")
def bind(folder: Path, recordings: tuple[Path, ...], out: Path | None) -> None:
    """Check that each image id of the recordings has one file in FOLDER (or binding): exit code 1 otherwise.

    The file written by --out may be named instead of a folder of images in `embed`, `train-decoder` and `reconstruct`.
    It is needed where image ids are not paths below FOLDER, and spares embedding images that were not shown.
    """
    from rich.console import Console

    from neurobridge_tb.datasets.image_binding import archive_advice, bind_images, recorded_image_ids
    from neurobridge_tb.report.recording_tables import print_binding

    if out is not None and out.suffix != ".json":
        raise InputError(expected="--out FILE.json", found=str(out), fix="Name it images.json, for example.")
    binding = bind_images(folder, (image_id for path in recordings for image_id in recorded_image_ids(path)))
    print_binding(Console(), binding, archive_advice(folder))
    if binding.missing or binding.doubled:
        sys.exit(1)
    if out is not None:
        binding.save(out)
        click.echo(f"The binding lies in {out}")
