"""The demo, its report, and what is installed."""

from pathlib import Path

import click

from neurobridge_tb.cli.options import FILE, FOLDER, IMAGES, SEED


@click.command()
@click.argument("workspace", type=FOLDER)
@click.option("--images", type=IMAGES, default=None, help="Folder of photos to show; default: drawn images.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--tiny", is_flag=True, help="Smallest sizes: tests an installation, and learns nothing.")
def demo(workspace: Path, images: Path | None, seed: int, tiny: bool) -> None:
    """Do the whole main job on simulated data, and end with an HTML report.

    Each stage is one command, printed before it runs. A demo that was cut goes on where it stopped.
    """
    from neurobridge_tb.cli.demo_stages import run_demo

    click.echo(f"\nReport: {run_demo(workspace, images, seed, tiny).resolve().as_uri()}")


@click.command()
@click.argument("workspace", type=FOLDER)
@click.option("--out", type=FILE, default=None, help="HTML file; default: WORKSPACE/report/index.html.")
def report(workspace: Path, out: Path | None) -> None:
    """One self-contained HTML page from the runs of a workspace."""
    from neurobridge_tb.report.page import build_report

    click.echo(f"Report: {build_report(workspace, out).resolve().as_uri()}")


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--out", type=FILE, default=None, help="HTML file; default: RUN/rate.html.")
@click.option("--backend", default=None, help="Whose pictures; default: the model's.")
def rate(run: Path, out: Path | None, backend: str | None) -> None:
    """A blind test for people: which of two pictures was seen?

    RUN is a run of `reconstruct`. The page is one file, works without a network and on a phone, and saves its answers
    as a file, which goes into RUN/ratings; `report` scores them.
    """
    from neurobridge_tb.report.rating import write_rating_page

    click.echo(f"Page: {write_rating_page(run, out, backend).resolve().as_uri()}")


@click.command()
def info() -> None:
    """Versions, devices and which optional parts are available."""
    from neurobridge_tb.cli.environment import describe

    for name, value in describe().items():
        click.echo(f"{name:<34}{value}")
