"""Rows of parameters, one for each unit, and rows of statistics."""

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from neurobridge_tb._upstream import InfiniteVocabEmbedding

_SMALLEST_MEAN = 1e-7  # counts a bin: half a spike in a day at 20 ms


class LeadEmbedding(InfiniteVocabEmbedding):
    """Embeddings of units or recordings, whose vocabulary other tables share: what is done to it is done there too.

    Attributes:
        followers: Those tables, with a row for each unit or recording in the same order.
    """

    def __init__(self, embedding_dim: int, init_scale: float = 0.02) -> None:
        super().__init__(embedding_dim, init_scale)
        self.followers: list[InfiniteVocabEmbedding] = []  # a list: not modules of this one

    def initialize_vocab(self, vocab: list[str]) -> None:
        super().initialize_vocab(vocab)
        for table in self.followers:
            table.initialize_vocab(vocab)

    def extend_vocab(self, vocab: list[str], exist_ok: bool = False) -> "LeadEmbedding":
        super().extend_vocab(vocab, exist_ok=exist_ok)
        for table in self.followers:
            table.extend_vocab(vocab, exist_ok=exist_ok)
        return self

    def subset_vocab(self, vocab: list[str], inplace: bool = True) -> InfiniteVocabEmbedding:
        followers, self.followers = self.followers, []  # it begins its own vocabulary anew
        try:
            subset = super().subset_vocab(vocab, inplace)
        finally:
            self.followers = followers
        if inplace:
            for table in followers:
                table.subset_vocab(vocab)
        return subset


class FixedRows(InfiniteVocabEmbedding):
    """Rows that are fitted and not trained. A vocabulary that is extended starts its new rows at the first value.

    Args:
        start: The row that a word starts with.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__(len(start))
        self.start = start
        self.weight = UninitializedParameter(requires_grad=False)

    def initialize_parameters(self, num_embeddings) -> None:  # type: ignore[override]
        super().initialize_parameters(num_embeddings)
        self.weight.requires_grad_(False)

    def reset_parameters(self) -> None:
        if not self.is_lazy():
            with torch.no_grad():
                self.weight.copy_(self.start.expand_as(self.weight))


class UnitStatistics(FixedRows):
    """Mean and standard deviation of each unit's values on the training split, by default (0, 1)."""

    def __init__(self) -> None:
        super().__init__(torch.tensor([0.0, 1.0]))

    def set(self, unit_ids: list[str], mean: Tensor, std: Tensor) -> None:
        """Set the rows of ``unit_ids``: ``mean`` and ``std`` are (len(unit_ids),); std 0 counts as 1."""
        index = rows_of(self, unit_ids)
        rows = torch.stack([mean, torch.where(std > 0, std, torch.ones_like(std))], dim=-1)
        with torch.no_grad():
            self.weight[index] = rows.to(self.weight)

    def log_mean(self, index: Tensor) -> Tensor:
        """Log of the mean count a bin of units ``index``, of its shape; a mean of 0 is of no unit that was fitted."""
        return self(index)[..., 0].clamp_min(_SMALLEST_MEAN).log()


def rows_of(table: InfiniteVocabEmbedding, words: list[str]) -> Tensor:
    """(n,) rows of words of the vocabulary, none of no words, where the table is."""
    return torch.tensor(table.tokenizer(words), dtype=torch.long, device=table.weight.device)


def batch_rows(index: Tensor, table: InfiniteVocabEmbedding) -> tuple[Tensor, Tensor]:
    """Rows of a table to make something from once a batch: all of them, or those of the batch where these are fewer.

    Decided by shapes alone: that takes no look at the values, which would wait for a GPU.

    Args:
        index: (B, N) unit indices.
        table: Where they point.

    Returns:
        Unit indices (R,), and (B, N) which of them each unit's is.
    """
    n_rows = table.weight.shape[0]
    if n_rows <= index.numel():
        return torch.arange(n_rows, device=index.device), index
    return index.flatten(), torch.arange(index.numel(), device=index.device).view_as(index)


def sum_by_row(x: Tensor, index: Tensor, n_rows: int) -> Tensor:
    """What a batch holds of each unit, or of each spike, laid out by rows.

    Args:
        x: (..., B, T, N).
        index: (B, N) which of the rows each is of, see :func:`batch_rows`.
        n_rows: R.

    Returns:
        (..., B, T, R) sums; 0 for rows that a window lacks.
    """
    return x.new_zeros(*x.shape[:-1], n_rows).scatter_add(-1, index[:, None].expand_as(x), x)
