"""From latents to an image embedding."""

from torch import Tensor, nn

from neurobridge_tb.nn.query_readout import QueryReadout


class Projector(nn.Module):
    """A linear read-out of all latents plus a 3-layer MLP on learned queries, then two heads.

    The *contrastive* head serves retrieval; the *regression* head is in the scale of the image embedding and serves
    generation (InfoNCE alone leaves the scale undefined). The MLP (Linear, LayerNorm, GELU, dropout) reads K queries
    that cross-attend to the latents; its heads start at zero, so that training begins from the linear read-out, which
    alone is a strong decoder when pairs are few.

    Args:
        dim: Latent dimension D.
        num_latents: Latents of a window, L.
        num_queries: K.
        dim_hidden: Hidden width of the MLP.
        dim_out: Width E of the image embedding, e.g. 768 for CLIP ViT-L/14.
        dropout: Dropout of the linear read-out's input and after each hidden layer.
        start_at_zero: The linear read-out starts at zero too: the projector is then a correction to something else.
            Default False.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_latents: int,
        num_queries: int,
        dim_hidden: int,
        dim_out: int,
        dropout: float,
        start_at_zero: bool = False,
    ):
        super().__init__()
        self.flat = nn.Sequential(nn.Flatten(), nn.LayerNorm(num_latents * dim), nn.Dropout(dropout))
        self.readout = QueryReadout(dim=dim, num_queries=num_queries)
        widths = [num_queries * dim, dim_hidden, dim_hidden, dim_hidden]
        self.mlp = nn.Sequential(
            nn.Flatten(),
            *(
                nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.GELU(), nn.Dropout(dropout))
                for a, b in zip(widths[:-1], widths[1:], strict=True)
            ),
        )
        self.linear_contrastive = nn.Linear(num_latents * dim, dim_out)
        self.linear_regression = nn.Linear(num_latents * dim, dim_out)
        self.mlp_contrastive = nn.Linear(dim_hidden, dim_out)
        self.mlp_regression = nn.Linear(dim_hidden, dim_out)
        zeros = [self.mlp_contrastive, self.mlp_regression]
        if start_at_zero:
            zeros += [self.linear_contrastive, self.linear_regression]
        for head in zeros:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) -> contrastive (B, E), of any norm, and regression (B, E)."""
        flat, hidden = self.flat(latents), self.mlp(self.readout(latents))
        contrastive = self.linear_contrastive(flat) + self.mlp_contrastive(hidden)
        return contrastive, self.linear_regression(flat) + self.mlp_regression(hidden)
