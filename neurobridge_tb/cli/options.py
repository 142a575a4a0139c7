"""Kinds of paths that several commands take."""

from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
SEED = click.IntRange(min=0)
IMAGES = click.Path(path_type=Path)  # a folder, or a binding made by `neurobridge images`
