"""Scores of a table's rows query by query, in ``queries.npz``: what paired differences between runs are made of.

``query`` (rows, n) holds the ids of the queries, ``labels`` (rows,) the text columns of each row as JSON, and each
measure a table (rows, n) of which the row's value is the mean.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurobridge_tb.arrays import Floats
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside

_FILE = "queries.npz"
ByQuery = dict[tuple[str, str], tuple[tuple[str, ...], Floats]]


class Queries:
    """Gathers the rows' scores by query."""

    def __init__(self) -> None:
        self._rows: list[tuple[Sequence[str], str, dict[str, list[float]]]] = []

    def take(self, rows: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows without what stands under ``by query``, which is kept.

        Args:
            rows: Of a table; those without ``by query`` stay as they are.
            ids: Of the queries.
        """
        for row in rows:
            if "by query" in row:
                self._rows.append((ids, labels_text(row), row["by query"]))
        return [{name: value for name, value in row.items() if name != "by query"} for row in rows]

    def save(self, folder: Path) -> None:
        """Write ``queries.npz``. Where recordings have unequally many queries, nothing is written."""
        if len({len(ids) for ids, _, _ in self._rows}) != 1:
            return
        arrays = {name: np.array([scores[name] for _, _, scores in self._rows]) for name in self._rows[0][2]}
        arrays["query"] = np.array([ids for ids, _, _ in self._rows])
        arrays["labels"] = np.array([labels for _, labels, _ in self._rows])
        with write_aside(folder / _FILE) as aside, aside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)


def labels_text(row: Mapping[str, Any]) -> str:
    """The text columns of a row as one text."""
    return json.dumps({name: value for name, value in row.items() if isinstance(value, str)}, sort_keys=True)


def read_queries(folder: Path) -> ByQuery:
    """Ids and scores of the queries, by :func:`labels_text` and measure; empty where there is no ``queries.npz``.

    Raises:
        InputError: It cannot be read.
    """
    path = folder / _FILE
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        ids, labels = arrays.pop("query"), arrays.pop("labels")
        return {
            (str(label), measure): (tuple(map(str, of_row)), values.astype(np.float64))
            for measure, table in arrays.items()
            for of_row, label, values in zip(ids, labels, table, strict=True)
        }
    except Exception as error:  # numpy and zipfile raise many kinds
        raise InputError(
            expected="queries.npz with query, labels and a table a measure",
            found=f"{path}: {error}",
            fix="Run the job that writes it again.",
        ) from error
