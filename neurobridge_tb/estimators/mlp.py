"""The plain MLP that alignment must beat: one hidden layer from responses to image embeddings."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurobridge_tb.arrays import Array, Standardizer, row_blocks


class MLP:
    """A fitted multilayer perceptron; :meth:`predict` maps responses to embeddings."""

    def __init__(self, inputs: Standardizer, targets: Standardizer, network: nn.Module):
        self.inputs, self.targets, self.network = inputs, targets, network

    @torch.no_grad()
    def predict(self, x: Array) -> np.ndarray:
        """Predict ``(n, targets)`` from ``x`` ``(n, features)``; NaN inputs count as the training mean."""
        device = next(self.network.parameters()).device
        outputs = self.network(_float32(self.inputs, x).to(device))
        return outputs.cpu().numpy() * self.targets.std + self.targets.mean


def fit_mlp(
    x: Array,
    y: Array,
    x_valid: Array,
    y_valid: Array,
    *,
    hidden: int = 512,
    dropout: float = 0.5,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    batch_size: int = 128,
    max_epochs: int = 60,
    patience: int = 8,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> MLP:
    """Train on z-scored inputs and targets with AdamW on the squared error; keep the epoch of least validation error.

    Args:
        x: ``(n, features)``; NaN set to the training mean.
        y: ``(n, targets)``.
        x_valid: ``(m, features)``; stops training.
        y_valid: ``(m, targets)``.
        hidden: Width of the hidden layer.
        dropout: Dropout before the output layer.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        batch_size: Samples a step.
        max_epochs: Most passes over the training set.
        patience: Epochs without improvement before training stops.
        seed: Seed of weights, dropout and order; the global random state is left as it was.
        device: Where to train.
    """
    inputs, targets = Standardizer.fit(x), Standardizer.fit(y)
    train, valid = (
        [_float32(scale, part).to(device) for scale, part in ((inputs, a), (targets, b))]
        for a, b in ((x, y), (x_valid, y_valid))
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(train[0].shape[1], hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, train[1].shape[1]),
        ).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        best, best_state, waited = float("inf"), network.state_dict(), 0
        for _ in range(max_epochs):
            network.train()
            for batch in torch.randperm(len(train[0])).split(batch_size):
                optimizer.zero_grad()
                F.mse_loss(network(train[0][batch]), train[1][batch]).backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                error = float(F.mse_loss(network(valid[0]), valid[1]))
            waited += 1
            if error < best:
                best, waited = error, 0
                best_state = {name: value.clone() for name, value in network.state_dict().items()}
            if waited == patience:
                break
    network.load_state_dict(best_state)
    return MLP(inputs, targets, network)


def _float32(scale: Standardizer, x: Array) -> Tensor:
    """Standardised rows, without a float64 copy of all of them."""
    return torch.cat([torch.from_numpy(scale(rows)).float() for rows in row_blocks(x)])
