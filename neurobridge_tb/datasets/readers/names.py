"""Names for recordings, tables and columns, from any text."""

import re
from collections.abc import Container

from neurobridge_tb.datasets.columns import can_hold


def file_name(text: str) -> str:
    """A name for a recording, a person and their files: ASCII without separators."""
    return re.sub(r"[^\w.\-]+", "_", text.encode("ascii", "replace").decode()).strip("._-") or "unnamed"


def identifier(text: str) -> str:
    """A name for a table, a series or a column: letters, digits and underscores."""
    plain = re.sub(r"\W+", "_", text.encode("ascii", "replace").decode()).strip("_") or "unnamed"
    return f"n{plain}" if plain[0].isdigit() else plain  # what begins with "_" torch_brain does not store


def free_name(text: str, taken: Container[str], kind: type) -> str:
    """An :func:`identifier` that is not taken, and that objects of a class of torch_brain can hold."""
    name = identifier(text)
    while name in taken or not can_hold(kind, name):
        name += "_"
    return name
