"""A weighted mean over batches and processes."""

import torch
from torch import Tensor
from torchmetrics import Metric


class WeightedMean(Metric):
    """Mean of values, each with a weight of its own, without a look at them, which would wait for the device.

    torchmetrics' ``MeanMetric`` looks for NaN; with ``nan_strategy="disable"`` it does not, but ignores the weights
    (torchmetrics 1.9).
    """

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: Tensor | float) -> None:
        """Add a scalar."""
        self.total += value.detach() * weight
        self.weight += weight

    def compute(self) -> Tensor:
        """The mean; NaN before the first value."""
        return self.total / self.weight
