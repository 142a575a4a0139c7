"""The `neurobridge` command."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from neurobridge_tb import __version__
from neurobridge_tb.errors import InputError, NeuroBridgeError
from neurobridge_tb.heap import restart_with_bounded_heap

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_IMAGES = click.Path(path_type=Path)  # a folder, or a binding made by `neurobridge images`
_ENCODER = "timm:tf_efficientnet_lite0"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Learn from spikes and multi-unit activity, and turn it into pictures.

    \b
    The main job, step by step:
      neurobridge simulate      raw files of a virtual monkey (or use your own recordings)
      brainsets prepare tvsd    raw files -> HDF5
      neurobridge validate      what is in an HDF5 recording, and what is wrong with it
      neurobridge images        does each image that was shown have its file?
      neurobridge pretrain      masked pretraining of the encoder
      neurobridge adapt         the same encoder for new recordings
      neurobridge score         how well it fills in hidden units, areas and the future
      neurobridge probe         how much of a behaviour its latents hold
      neurobridge finetune      train it on a behaviour, from many labels or few
      neurobridge forecast      spikes up to a second ahead, also of units never seen
      neurobridge embed         embeddings of the stimulus images
      neurobridge align         neural activity -> image embedding (two stages)
      neurobridge evaluate      retrieval, beside its baselines
      neurobridge reconstruct   pictures, beside their baselines
      neurobridge report        one HTML page of it all
    `neurobridge demo` does all of it on simulated data.
    """


def run() -> None:
    """Entry point: an error that NeuroBridge raises on purpose is printed without a traceback."""
    asked = main.commands.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if isinstance(asked, _JobCommand) or asked in (demo, train_decoder):  # what runs for long; others start at once
        restart_with_bounded_heap()
    try:
        main()
    except NeuroBridgeError as error:
        click.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(2)


class _JobCommand(click.Command):
    """A command whose options are Hydra overrides; its help shows the config."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from importlib.resources import files

        configs = files("neurobridge_tb.configs")
        formatter.write_paragraph()
        with formatter.section("Groups (choose with group=name)"):
            text = (configs / f"{self.name}.yaml").read_text(encoding="utf-8")
            for group in (g for g in ("dataset", "model", "forecaster") if f"- {g}:" in text):
                names = sorted(f.name[:-5] for f in (configs / group).iterdir() if f.name.endswith(".yaml"))
                formatter.write_text(f"{group}: {', '.join(names)}")
        with formatter.section(f"Config (neurobridge_tb/configs/{self.name}.yaml)"):
            for line in text.splitlines():
                formatter.write(f"  {line}\n")


@contextmanager
def _progress() -> Iterator[Callable[[str, float, float], None]]:
    """Progress bars, one a stage; yields ``show(stage, done, total)``. After a colon, a stage says how it is doing."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns) as bar:
        tasks = {}

        def show(stage: str, done: float, total: float) -> None:
            name = stage.partition(":")[0]
            if name not in tasks:
                tasks[name] = bar.add_task(stage, total=total)
            bar.update(tasks[name], completed=done, total=total, description=stage)

        yield show


def _job(name: str, module: str, function: str, text: str) -> None:
    """Add a command that composes a config from its arguments and calls a job with it."""

    @main.command(name, cls=_JobCommand, help=text)
    @click.argument("overrides", nargs=-1, metavar="[NAME=VALUE]...")
    def command(overrides: tuple[str, ...]) -> None:
        from importlib import import_module

        from neurobridge_tb.evaluation.terminal_table import print_rows
        from neurobridge_tb.training.config import compose_config

        config = compose_config(name, list(overrides))
        result = getattr(import_module(module), function)(config)
        print_rows(result / "metrics.json")
        click.echo(f"Results lie in {result}")


_job(
    "pretrain",
    "neurobridge_tb.training.pretrain",
    "pretrain",
    "Masked pretraining of a NeuroBridgeModel. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge pretrain dataset=tvsd dataset.root=processed model=small trainer.max_epochs=50",
)
_job(
    "adapt",
    "neurobridge_tb.training.adapt",
    "adapt",
    "Adapt a trained model to new recordings: rows for their units and sessions, and with mode=gradual the rest of the "
    "model after them. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge adapt dataset=binned dataset.root=processed pretrained=runs/pretrain/model mode=units",
)
_job(
    "probe",
    "neurobridge_tb.training.probe",
    "probe",
    "Linear probe of a pretrained encoder: R^2 of a behaviour from its frozen latents, beside random weights and raw "
    "activity.\n\n"
    "Example: neurobridge probe dataset=binned dataset.root=processed pretrained=runs/pretrain/model "
    "target=hand_velocity_2d",
)
_job(
    "score",
    "neurobridge_tb.training.score",
    "score",
    "Bits/spike of a pretrained model where fixed masks hide units, areas or the future, beside a Poisson GLM on the "
    "same inputs.\n\n"
    "Example: neurobridge score dataset=binned dataset.root=processed pretrained=runs/pretrain/model "
    "'tasks=[co_smoothing, intra_region, inter_region]'",
)
_job(
    "finetune",
    "neurobridge_tb.training.finetune",
    "finetune",
    "Fine-tune a pretrained encoder on a continuous behaviour, beside the same network from scratch, a GRU, POYO and "
    "ridge on the same labels. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge finetune dataset=binned dataset.root=processed pretrained=runs/pretrain/model "
    "target=hand_velocity_2d labels=21",
)
_job(
    "align",
    "neurobridge_tb.training.align",
    "align",
    "Align a pretrained encoder with image embeddings: stage 1 with the encoder frozen, stage 2 with its last layers "
    "free and masked loss replayed. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge align dataset.root=processed pretrained=runs/pretrain/model embeddings=embeddings.h5",
)
_job(
    "forecast",
    "neurobridge_tb.training.forecast",
    "forecast",
    "Train a NeuroHorizonModel to forecast spikes up to a second ahead, and score it rolled out, beside the last "
    "smoothed rate; also on recordings whose units it never saw. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge forecast dataset=binned dataset.root=processed forecaster=laptop model.bin_size=0.05 "
    "model.history=0.25 model.horizon=0.5",
)
_job(
    "evaluate",
    "neurobridge_tb.training.evaluate",
    "evaluate",
    "Retrieval of the test images, with confidence intervals, beside ridge, shuffled labels and chance.\n\n"
    "Example: neurobridge evaluate dataset.root=processed aligned=runs/align embeddings=embeddings.h5",
)
_job(
    "reconstruct",
    "neurobridge_tb.training.reconstruct",
    "reconstruct",
    "Pictures of the test images from neural activity, beside nearest image and ridge pixels, with metrics.\n\n"
    "Example: neurobridge reconstruct dataset.root=processed aligned=runs/align embeddings=embeddings.h5 images=images",
)


@main.command()
@click.argument("workspace", type=_FOLDER)
@click.option("--monkey", type=click.Choice(["F", "N"]), default="F", show_default=True)
@click.option("--images", type=_IMAGES, default=None, help="Folder of photos to show; default: drawn images.")
@click.option("--concepts", default=250, show_default=True, help="Image classes.")
@click.option("--per-concept", default=12, show_default=True, help="Training images of each class.")
@click.option("--repeats", default=30, show_default=True, help="Presentations of each of the 100 test images.")
@click.option("--noise", default=1.0, show_default=True, help="Scale of the trial-to-trial noise.")
@click.option("--difficulty", default=0.0, show_default=True, help="How nonlinear the sites' answers are.")
@click.option("--trials", is_flag=True, help="Also write THINGS_MUA_trials.mat (300 ms a trial, large).")
@click.option("--seed", default=0, show_default=True)
def simulate(
    workspace: Path, monkey: str, images: Path | None, concepts: int, per_concept: int, repeats: int,
    noise: float, difficulty: float, trials: bool, seed: int,
) -> None:  # fmt: skip
    """Write the raw files of a virtual monkey, in the layout of TVSD.

    A virtual ventral stream (V1, V4, IT) looks at images; what it answers is written to WORKSPACE/raw/tvsd, and the
    images, when they are drawn here, to WORKSPACE/images.
    """
    from neurobridge_tb.simulation import simulate_tvsd
    from neurobridge_tb.simulation.stimuli import class_photos

    source = None if images is None else class_photos(images, workspace / "photos.json")
    if source != images:
        click.echo(f"The photos lie in no class folders: each is a class. From here on, name {source} as the images.")
    with _progress() as progress:
        raw = simulate_tvsd(
            workspace, monkey=monkey, images_dir=source, n_concepts=concepts, images_per_concept=per_concept,
            n_repeats=repeats, noise=noise, difficulty=difficulty, trials=trials, seed=seed, progress=progress,
        )  # fmt: skip
    click.echo(f"Simulated raw files lie in {raw}")


@main.command("simulate-allen")
@click.argument("workspace", type=_FOLDER)
@click.option("--session", default=1, show_default=True, help="Number of the session; another one is another animal.")
@click.option("--units", default=300, show_default=True, help="Units; about half pass the quality filter.")
@click.option("--seconds", default=1800.0, show_default=True, help="Length; published sessions last about 9,600.")
@click.option("--rate", default=4.0, show_default=True, help="Mean firing rate in Hz.")
@click.option("--seed", default=0, show_default=True)
def simulate_allen(workspace: Path, session: int, units: int, seconds: float, rate: float, seed: int) -> None:
    """Write a simulated session in the layout of Allen Visual Coding Neuropixels (NWB).

    Six probes in a mouse that runs and looks at scenes, movies, gratings, Gabor patches and flashes. The file goes to
    WORKSPACE/raw/allen_visual_coding_neuropixels_2019, where `brainsets prepare` looks for it.
    """
    from neurobridge_tb.simulation import simulate_allen_session

    with _progress() as progress:
        path = simulate_allen_session(
            workspace, session_id=session, n_units=units, seconds=seconds, rate=rate, seed=seed, progress=progress
        )
    click.echo(f"Simulated session lies in {path}")


@main.command("simulate-ibl")
@click.argument("workspace", type=_FOLDER)
@click.option("--sessions", default=1, show_default=True, help="Sessions, each of another animal.")
@click.option("--probes", type=click.IntRange(1, 2), default=2, show_default=True)
@click.option("--units", default=24, show_default=True, help="Good units of each probe, besides as many others.")
@click.option("--seconds", default=600.0, show_default=True, help="Length; published sessions last about 4,500.")
@click.option("--seed", default=0, show_default=True)
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


@main.command()
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
def validate(recordings: tuple[Path, ...]) -> None:
    """What recordings hold, and what is wrong with them: exit code 1 if anything is."""
    from rich.console import Console

    from neurobridge_tb.datasets.recording_tables import print_recording
    from neurobridge_tb.datasets.validation import examine

    console, faulty = Console(), 0
    for path in recordings:
        contents, faults = examine(path)
        print_recording(console, path, contents, faults)
        faulty += any(fault.is_error for fault in faults)
    if faulty:
        console.print(f"[red]{faulty} of {len(recordings)} recordings have faults.")
        sys.exit(1)


@main.command("images")
@click.argument("folder", type=_IMAGES)
@click.argument("recordings", nargs=-1, required=True, type=_FILE, metavar="RECORDING...")
@click.option("--out", type=_FILE, default=None, help="JSON file to write: the binding of image ids to files.")
def bind(folder: Path, recordings: tuple[Path, ...], out: Path | None) -> None:
    """Check that each image id of the recordings has one file in FOLDER (or binding): exit code 1 otherwise.

    The file written by --out may be named instead of a folder of images in `embed`, `train-decoder` and `reconstruct`.
    It is needed where image ids are not paths below FOLDER, and spares embedding images that were not shown.
    """
    from rich.console import Console

    from neurobridge_tb.datasets.image_binding import archive_advice, bind_images, recorded_image_ids
    from neurobridge_tb.datasets.recording_tables import print_binding

    if out is not None and out.suffix != ".json":
        raise InputError(expected="--out FILE.json", found=str(out), fix="Name it images.json, for example.")
    binding = bind_images(folder, (image_id for path in recordings for image_id in recorded_image_ids(path)))
    print_binding(Console(), binding, archive_advice(folder))
    if binding.missing or binding.doubled:
        sys.exit(1)
    if out is not None:
        binding.save(out)
        click.echo(f"The binding lies in {out}")


@main.command()
@click.argument("images", type=_IMAGES)
@click.option("--out", type=_FILE, required=True, help="HDF5 file to write.")
@click.option("--encoder", default=_ENCODER, show_default=True, help="timm:NAME[@WEIGHTS] or open_clip:NAME/TAG.")
@click.option("--image-size", type=int, default=None, help="Pixels; default: the encoder's own.")
def embed(images: Path, out: Path, encoder: str, image_size: int | None) -> None:
    """Embed every image once, for `align`, `evaluate` and `reconstruct`.

    IMAGES is a folder, or a binding made by `neurobridge images`.
    """
    from neurobridge_tb.training.embed import embed_folder

    with _progress() as progress:
        count = embed_folder(images, out, encoder, image_size, progress=progress)
    click.echo(f"{count} embeddings lie in {out}")


@main.command("train-decoder")
@click.argument("images", type=_IMAGES)
@click.option("--out", type=_FOLDER, required=True, help="Folder to write the decoder to.")
@click.option("--embeddings", type=_FILE, required=True, help="File made by `embed` on this folder.")
@click.option("--backend", type=click.Choice(["small_diffusion", "sd_adapter", "ip_adapter"]),
              default="small_diffusion", show_default=True)  # fmt: skip
@click.option("--minutes", default=30.0, show_default=True, help="How long to train.")
@click.option("--exclude", type=_FILE, default=None, help="Recording (HDF5) whose test images are left out.")
@click.option("--weights", default=None, help="Adapters: hub id or folder of Stable Diffusion.")
@click.option("--autoencoder", type=_FOLDER, default=None, help="small_diffusion: draw in the latents of this one.")
@click.option("--image-size", type=int, default=None, help="Pixels; default: 64, or Stable Diffusion's own.")
@click.option("--batch-size", type=int, default=None, help="Pictures a step; default: 64, for adapters 8.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--seed", default=0, show_default=True)
def train_decoder(
    images: Path, out: Path, embeddings: Path, backend: str, minutes: float, exclude: Path | None,
    weights: str | None, autoencoder: Path | None, image_size: int | None, batch_size: int | None,
    device: str, dtype: str, seed: int,
) -> None:  # fmt: skip
    """Train a decoder on a folder of images: image embedding -> picture.

    By default a small diffusion model, 64 x 64 pixels, which needs nothing else; or an adapter to a frozen Stable
    Diffusion. Test images must not be among those it learns from: name the recording with --exclude. Run again with the
    same --out to resume.
    """
    from neurobridge_tb.training.decoder import train_decoder as train

    with _progress() as progress:
        train(
            images, embeddings, out, backend=backend, minutes=minutes, exclude=exclude, weights=weights,
            autoencoder=autoencoder, image_size=image_size, batch_size=batch_size, device=device, dtype=dtype,
            seed=seed, progress=progress,
        )  # fmt: skip
    click.echo(f"Decoder lies in {out}")


@main.command()
@click.argument("workspace", type=_FOLDER)
@click.option("--images", type=_IMAGES, default=None, help="Folder of photos to show; default: drawn images.")
@click.option("--seed", default=0, show_default=True)
def demo(workspace: Path, images: Path | None, seed: int) -> None:
    """Do the whole main job on simulated data, and end with an HTML report.

    Each stage is one command, printed before it runs. A demo that was cut goes on where it stopped.
    """
    from neurobridge_tb.demo import run_demo

    click.echo(f"\nReport: {run_demo(workspace, images, seed).resolve().as_uri()}")


@main.command()
@click.argument("workspace", type=_FOLDER)
@click.option("--out", type=_FILE, default=None, help="HTML file; default: WORKSPACE/report/index.html.")
def report(workspace: Path, out: Path | None) -> None:
    """One self-contained HTML page from the runs of a workspace."""
    from neurobridge_tb.evaluation.report import build_report

    click.echo(f"Report: {build_report(workspace, out).resolve().as_uri()}")


@main.command()
def info() -> None:
    """Versions, devices and which optional parts are available."""
    from neurobridge_tb.environment import describe

    for name, value in describe().items():
        click.echo(f"{name:<34}{value}")


if __name__ == "__main__":
    run()
