"""Names for recordings, tables and columns, from any text."""

import re
from collections.abc import Container


def file_name(text: str) -> str:
    """A name for a recording, a person and their files: ASCII without separators."""
    return re.sub(r"[^\w.\-]+", "_", text.encode("ascii", "replace").decode()).strip("._-") or "unnamed"


def identifier(text: str) -> str:
    """A name for a table, a series or a column: letters, digits and underscores."""
    plain = re.sub(r"\W+", "_", text.encode("ascii", "replace").decode()).strip("_") or "unnamed"
    return f"n{plain}" if plain[0].isdigit() else plain  # what begins with "_" torch_brain does not store


def free_name(text: str, taken: Container[str], owner: type = object) -> str:
    """An :func:`identifier` that is not taken, and is no method of the object that gets it (``Interval.split``)."""
    name = identifier(text)
    while name in taken or hasattr(owner, name):
        name += "_"
    return name
