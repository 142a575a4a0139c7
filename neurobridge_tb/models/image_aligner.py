"""ImageAligner: from neural activity to the embedding of the image that was seen."""

import inspect
from typing import Any

import torch
from torch import Tensor

from neurobridge_tb.errors import InputError
from neurobridge_tb.models.neurobridge import NeuroBridgeModel
from neurobridge_tb.models.pretrained import PretrainedModel
from neurobridge_tb.nn.layer_maps import LayerMaps, weighted_parts
from neurobridge_tb.nn.projector import Projector
from neurobridge_tb.nn.response_readout import ResponseReadout


class ImageAligner(PretrainedModel):
    """A :class:`NeuroBridgeModel` encoder, and two ways from it into an image encoder's space, which are added.

    1. *Linear*: the standardised responses themselves, by weights of each unit (:class:`ResponseReadout`). Alignment
       fits it as a ridge regression, in closed form. ``to_contrastive`` turns its prediction into the one that is
       compared with images.
    2. *Latents*: a projector that starts at zero, and so learns the residual of the linear read-out.

    The embedding may be of several layers of the image encoder, side by side. Each is compared by itself; the layers'
    cosines are added with ``layer_weights``, which are fitted to validation data. Both sides are compared after
    subtracting the mean training embedding (``embedding_mean``): image embeddings share a large common part, which
    would drown the differences that retrieval needs. ``image_map``, a linear map of each layer that starts at zero, is
    added to the image side.

    Args:
        encoder: Config of the :class:`NeuroBridgeModel`.
        image_encoder: Name of the image encoder whose space this is, e.g. ``"timm:tf_efficientnet_lite0"``.
        preprocessing_hash: The image encoder's preprocessing, see :mod:`neurobridge_tb.alignment.encoders`.
        dim_embedding: Width E of the image embedding, of all layers together.
        layers: Width of each layer, adding up to E. Default: one layer, ``"final"``.
        num_queries: Learned read-out queries. Default 8.
        dim_hidden: Hidden width of the projector. Default 1024.
        dropout: Dropout of the projector. Default 0.5.
        linear_path: Have the linear read-out too. Default False: latents alone.
    """

    embedding_mean: Tensor
    embedding_std: Tensor
    layer_weights: Tensor

    def __init__(
        self,
        *,
        encoder: dict[str, Any],
        image_encoder: str,
        preprocessing_hash: str,
        dim_embedding: int,
        layers: dict[str, int] | None = None,
        num_queries: int = 8,
        dim_hidden: int = 1024,
        dropout: float = 0.5,
        linear_path: bool = False,
    ):
        super().__init__()
        arguments = inspect.signature(ImageAligner.__init__).parameters
        self.config = {k: v for k, v in locals().items() if k in arguments and k != "self"}
        self.layers = layers or {"final": dim_embedding}
        self.encoder = NeuroBridgeModel(**encoder)
        if self.encoder.reads_events:
            raise InputError(
                expected="an encoder of values on a grid (modality 'mua' or 'spike_counts')",
                found="one of spike events",
                fix="Count the spikes in bins (build_recording's spike_counts) and pretrain on these.",
            )
        self.projector = Projector(
            dim=self.encoder.dim,
            num_latents=self.encoder.num_latents,
            num_queries=num_queries,
            dim_hidden=dim_hidden,
            dim_out=dim_embedding,
            dropout=dropout,
            start_at_zero=linear_path,
        )
        self.linear: ResponseReadout | None = None
        if linear_path:
            self.linear = ResponseReadout(
                dim_out=dim_embedding,
                num_steps=self.encoder.num_latents // self.encoder.num_latents_per_step,
                latent_step=self.encoder.latent_step,
            )
            self.to_contrastive = LayerMaps(list(self.layers.values()), gain=1.0)
        self.image_map = LayerMaps(list(self.layers.values()), gain=0.0)
        self.register_buffer("layer_weights", torch.full((len(self.layers),), 1 / len(self.layers)))
        self.register_buffer("embedding_mean", torch.zeros(dim_embedding))
        self.register_buffer("embedding_std", torch.ones(dim_embedding))
        self.register_load_state_dict_pre_hook(_complete)

    def set_encoder(self, encoder: NeuroBridgeModel) -> None:
        """Take a pretrained encoder; its units get rows of the linear read-out, which start at zero."""
        self.encoder = encoder
        if self.linear is not None:
            self.linear.initialize_vocab(list(encoder.unit_emb.vocab)[1:])  # the first one is padding

    def fit_embedding_statistics(self, embeddings: Tensor) -> None:
        """Take mean and standard deviation of each dimension from the training images' embeddings (n, E).

        A deviation counts as a tenth of the median one of its layer at least: a dimension that few images happen to
        leave alone would outweigh all others.
        """
        parts = embeddings.std(0).split(list(self.layers.values()))
        self.embedding_mean.copy_(embeddings.mean(0))
        self.embedding_std.copy_(torch.cat([p.clamp_min(0.1 * float(p.median())).clamp_min(1e-6) for p in parts]))

    def forward(self, *, linear: Tensor | None = None, **model_inputs: Any) -> tuple[Tensor, Tensor]:
        """Embeddings of a batch of windows.

        Args:
            linear: (B, E) to take the place of the linear read-out's prediction. Default: its own.
            **model_inputs: As :meth:`NeuroBridgeModel.encode` takes them.

        Returns:
            contrastive (B, E), unit norm, to be compared with :meth:`center`-ed image embeddings by their dot product,
            the weighted sum of the layers' cosines;
            regression (B, E), an estimate of the image embedding itself.
        """
        contrastive, regression = self.projector(self.encoder.encode(**model_inputs))
        if self.linear is not None:
            if linear is None:
                units = model_inputs["input_unit_index"]
                values = self.encoder.standardize(model_inputs["input_values"], units)
                linear = self.linear(values, model_inputs["input_mask"], model_inputs["input_timestamps"], units)
            contrastive, regression = contrastive + self.to_contrastive(linear), regression + linear
        return self._weighted(contrastive), regression * self.embedding_std + self.embedding_mean

    def center(self, embeddings: Tensor) -> Tensor:
        """Image embeddings (n, E) less their mean, mapped, unit norm: what contrastive output is compared with."""
        centred = embeddings - self.embedding_mean
        return self._weighted(centred + self.image_map(centred / self.embedding_std) * self.embedding_std)

    def _weighted(self, embedding: Tensor) -> Tensor:
        return weighted_parts(embedding, list(self.layers.values()), self.layer_weights)


def _complete(model: ImageAligner, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Models of before there were layers: one map, and nothing on the image side."""
    if f"{prefix}layer_weights" not in state:
        state[f"{prefix}layer_weights"] = model.layer_weights
        state |= {f"{prefix}image_map.{k}": v for k, v in model.image_map.state_dict().items()}
        if model.linear is not None:
            state[f"{prefix}to_contrastive.maps.0"] = state.pop(f"{prefix}to_contrastive.weight")
