"""Numbers of a recording's units in a vocabulary."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb._upstream import Data, InfiniteVocabEmbedding
from neurobridge_tb.errors import InputError


class UnitLookup:
    """Looks the units of a recording up once, not once a window."""

    def __init__(self) -> None:
        self._vocab: tuple[Any, int] = None, 0
        self._found: dict[str, tuple[NDArray[Any], NDArray[np.int64]]] = {}  # of each recording: ids, and their numbers

    def __call__(self, table: InfiniteVocabEmbedding, data: Data) -> NDArray[np.int64]:
        """(N,) numbers of the units of a recording, or of a window of it; not to be written to.

        Raises:
            KeyError: The vocabulary of ``table`` lacks a unit.
            InputError: It has no vocabulary yet.
        """
        vocab = table.vocab
        if vocab is None:
            raise InputError(
                expected="a model that knows units",
                found="one without a vocabulary",
                fix="Call model.init_vocabs(dataset) first.",
            )
        if self._vocab[0] is not vocab or self._vocab[1] != len(vocab):
            self._vocab, self._found = (vocab, len(vocab)), {}
        recording, ids = str(data.session.id), data.units.id
        known = self._found.get(recording)
        if known is None or not (known[0] is ids or np.array_equal(known[0], ids)):
            known = ids, np.array(table.tokenizer(ids.astype(str).tolist()), dtype=np.int64)
            self._found[recording] = known
        return known[1]
