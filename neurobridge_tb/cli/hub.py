"""Models that come with the package, and models for others."""

from pathlib import Path

import click

from neurobridge_tb.cli.options import FOLDER


@click.command()
def models() -> None:
    """The models that come with the package: name, size, licence, data, folder."""
    from neurobridge_tb.hub import read_card, shipped_models

    for name, folder in shipped_models().items():
        card = read_card(folder)
        megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        click.echo(f"{name}: {card['summary']}")
        click.echo(f"  {megabytes:.1f} MB, {card['license']}, {', '.join(card['tags'])}\n  {folder}")


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("repository")
@click.option("--licence", required=True, help="Of the weights, as the hub spells it, e.g. cc-by-4.0.")
@click.option("--scores", type=FOLDER, multiple=True, help="A run that scored the model; may be given several times.")
@click.option("--use", default="", help="What the model is for; default: what its kind is for.")
@click.option("--private", is_flag=True, help="Only its organisation sees a new repository.")
@click.option("--dry-run", is_flag=True, help="Print the model card, and upload nothing.")
def push(
    run: Path, repository: str, licence: str, scores: tuple[Path, ...], use: str, private: bool, dry_run: bool
) -> None:
    """Upload a run's model to the Hugging Face hub, with a model card made of its results.

    RUN is a run of a training; REPOSITORY is ORGANISATION/MODEL. The card names data, licence, scores with intervals,
    and the commands that made them; look at it with --dry-run first.
    """
    from neurobridge_tb.report.model_card import model_card

    card = model_card(run, name=repository, licence=licence, scores=scores, use=use)
    if dry_run:
        click.echo(card)
        return
    from neurobridge_tb.hub import push_model

    click.echo(f"Uploaded: {push_model(run / 'model', repository, card=card, private=private)}")
