"""Names for recordings, tables and columns, from any text."""

import re


def file_name(text: str) -> str:
    """A name for a recording, a person and their files: ASCII without separators."""
    return re.sub(r"[^\w.\-]+", "_", text.encode("ascii", "replace").decode()).strip("._-") or "unnamed"


def identifier(text: str) -> str:
    """A name for a table, a series or a column: letters, digits and underscores."""
    plain = re.sub(r"\W+", "_", text.encode("ascii", "replace").decode()).strip("_") or "unnamed"
    return f"_{plain}" if plain[0].isdigit() else plain
