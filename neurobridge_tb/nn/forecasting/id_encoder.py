"""Who a unit is, from its reference features: rows of parameters for units that were never trained."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding
from neurobridge_tb.datasets.reference_features import N_FEATURES
from neurobridge_tb.nn.unit_rows import FixedRows, batch_rows, rows_of


class IDEncoder(nn.Module):
    """3-layer MLP (Linear, GELU, LayerNorm) from reference features to unit embeddings.

    Features are compressed (``sign(x) log(1 + |x|)``), standardised by those of the training units (see :meth:`fit`)
    and clipped at 5 standard deviations. In training they are made noisy: another reference window would give other
    values, and units that were never trained are to be embedded close to those that are like them.

    Args:
        dim: Width of the embeddings.
        n_features: Features of a unit. Default 33, see :mod:`neurobridge_tb.datasets.reference_features`.
        noise: Standard deviation of that noise, in standard deviations of the training units. Default 0.5.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, n_features: int = N_FEATURES, noise: float = 0.5):
        super().__init__()
        self.noise = noise
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))
        widths = [n_features, dim, dim, dim]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(a, b), nn.GELU(), nn.LayerNorm(b))
                for a, b in zip(widths[:-1], widths[1:], strict=True)
            )
        )

    def fit(self, features: Tensor) -> None:
        """Standardise by these features (N, n_features) from now on; a feature without variance is only centred."""
        compressed = _compress(features)
        self.mean.copy_(compressed.mean(0))
        std = compressed.std(0, unbiased=False)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, features: Tensor) -> Tensor:
        """(..., n_features) -> (..., dim)."""
        standard = ((_compress(features) - self.mean) / self.std).clamp(-5, 5)
        if self.training:
            standard = standard + self.noise * torch.randn_like(standard)
        return self.layers(standard)


def _compress(features: Tensor) -> Tensor:
    return features.sign() * features.abs().log1p()


class UnitFeatures(FixedRows):
    """Reference features of each unit by its id; not trained. New rows are zeros."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(N_FEATURES))

    def set(self, unit_ids: list[str], features: Tensor) -> None:
        """Set the rows of ``unit_ids`` to ``features`` (len(unit_ids), 33)."""
        with torch.no_grad():
            self.weight[rows_of(self, unit_ids)] = features.to(self.weight)


class UnitIdentity(nn.Module):
    """Embedding of each unit from its reference features.

    Args:
        dim: Width of the embeddings.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.features = UnitFeatures()
        self.encoder = IDEncoder(dim)
        self._embeddings: Tensor | None = None

    def forward(self, index: Tensor) -> Tensor:
        """(...) unit indices -> (..., dim)."""
        if self._embeddings is not None:
            return self._embeddings[index]
        return self.encoder(self.features(index))

    @torch.no_grad()
    def precompute(self) -> None:
        """Embed all units now and look them up from here on; :meth:`train` (and ``eval``) ends it."""
        self._embeddings = self.encoder(self.features.weight)

    def train(self, mode: bool = True) -> "UnitIdentity":
        self._embeddings = None
        return super().train(mode)


class IdentityRows(nn.Module):
    """A linear map of unit identities in place of a table with one trained row a unit.

    Args:
        identity: Makes the embeddings; shared by all maps of a model, whose submodule it is.
        table: The table that this takes the place of: its width, and its scale at initialisation.
        dim: Width of the identities.
    """

    def __init__(self, identity: UnitIdentity, table: InfiniteVocabEmbedding, dim: int):
        super().__init__()
        self._identity = (identity,)  # not a submodule: its parameters belong to the model once
        self.rows = nn.Linear(dim, table.embedding_dim, bias=False)
        nn.init.normal_(self.rows.weight, std=table.init_scale * dim**-0.5)

    @property
    def tokenizer(self):
        """From unit ids to indices."""
        return self._identity[0].features.tokenizer

    def forward(self, index: Tensor) -> Tensor:
        """(...) unit indices -> (..., width); mapped once a unit of the vocabulary, where a batch names more."""
        units, place = batch_rows(index, self._identity[0].features)
        return F.embedding(place, self.rows(self._identity[0](units)))
