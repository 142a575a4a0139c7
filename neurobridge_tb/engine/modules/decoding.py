"""Training a decoder of behaviour: labelled windows, the Lightning module, and a closed-form start."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import Data, collate, pad
from neurobridge_tb.arrays import Standardizer
from neurobridge_tb.data.behavior import behavior_at
from neurobridge_tb.devices import compute
from neurobridge_tb.engine.modules.window_module import WindowModule
from neurobridge_tb.engine.optim import Group
from neurobridge_tb.estimators.ridge import fit_ridge
from neurobridge_tb.models import BehaviorDecoder
from neurobridge_tb.nn.unit_dropout import draw_shown_units
from neurobridge_tb.registry_ext import ModalitySpec

_BATCH = 64


class LabelledTokenizer:
    """Tokenize a window together with its standardised behaviour.

    Args:
        decoder: Its ``tokenize`` makes the inputs.
        spec: The behaviour.
        scale: Mean and standard deviation of the behaviour.
        unit_dropout: A random share of the units, at most this, is hidden; one stays. Default 0.
    """

    def __init__(self, decoder: Any, spec: ModalitySpec, scale: Standardizer, *, unit_dropout: float = 0.0):
        self.decoder, self.spec, self.scale, self.unit_dropout = decoder, spec, scale, unit_dropout

    def __call__(self, data: Data) -> dict[str, Any]:
        shown = draw_shown_units(torch.ones(1, len(data.units), dtype=torch.bool), self.unit_dropout)[0]
        inputs = self.decoder.tokenize(data, shown.numpy())
        times = np.asarray(inputs["output_timestamps"].obj)
        behavior = behavior_at(data, self.spec, times + (times[1] - times[0]) / 2)
        return {
            "model_inputs": inputs,
            "target_values": pad(torch.from_numpy(self.scale(behavior).astype(np.float32))),
            "target_mask": pad(torch.from_numpy(np.isfinite(behavior).all(1))),
        }


class DecodingModule(WindowModule):
    """Train a decoder with the behaviour's loss.

    Args:
        decoder: A :class:`BehaviorDecoder` or a baseline.
        loss_fn: The modality's loss.
        lr: Highest learning rate.
        weight_decay: AdamW's weight decay.
    """

    def __init__(self, decoder: nn.Module, loss_fn: Callable, *, lr: float, weight_decay: float):
        super().__init__()
        self.decoder, self.loss_fn = decoder, loss_fn
        self.lr, self.weight_decay = lr, weight_decay

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: dict, batch_index: int) -> None:
        self._loss(batch, "val")

    def _loss(self, batch: dict, split: str) -> Tensor:
        predicted, wanted = (x.flatten(0, 1) for x in (self.decoder(**batch["model_inputs"]), batch["target_values"]))
        exists = batch["target_mask"].flatten().to(predicted)  # a weight, not an index, which would wait for the device
        loss = self.loss_fn(predicted, wanted, exists)
        cells: Any = exists.sum()
        shared = split == "train"  # each process validates on all windows
        self.log(f"{split}/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=cells, sync_dist=shared)
        return self.over_processes(loss, cells) if shared else loss

    def compile_networks(self) -> None:
        self.decoder.compile(dynamic=True)

    def configure_optimizers(self) -> Any:
        return self.adamw(Group(list(self.decoder.named_parameters()), self.lr), weight_decay=self.weight_decay)


def _batches(tokenizer: LabelledTokenizer, windows: list[Data]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(windows), _BATCH):
        yield collate([tokenizer(window) for window in windows[start : start + _BATCH]])


@torch.no_grad()
def predict_behavior(decoder: nn.Module, tokenizer: LabelledTokenizer, windows: list[Data]) -> list[np.ndarray]:
    """Standardised behaviour (T, dim) of each window."""
    predicted = []
    for batch in _batches(tokenizer, windows):
        outputs = compute(decoder, **batch["model_inputs"])
        predicted += [o[mask].numpy() for o, mask in zip(outputs, batch["target_mask"], strict=True)]
    return predicted


@torch.no_grad()
def fit_readout(
    decoder: BehaviorDecoder, tokenizer: LabelledTokenizer, train: list[Data], valid: list[Data]
) -> BehaviorDecoder:
    """Set the linear layer by ridge regression from the decoder's bin states as they are, with or without factors.

    A model whose states tell all does better without factors where labels are few: its weights of them are then 0.

    Args:
        decoder: With a pretrained encoder.
        tokenizer: Makes its inputs and standardised targets.
        train: Windows to fit on.
        valid: Windows that choose the penalty, and whether factors are read.
    """
    decoder.eval()

    def samples(windows: list[Data]) -> tuple[np.ndarray, np.ndarray]:
        states, targets = [], []
        for batch in _batches(tokenizer, windows):
            states.append(compute(decoder.states, **batch["model_inputs"])[batch["target_mask"]].numpy())
            targets.append(batch["target_values"][batch["target_mask"]].numpy())
        return np.concatenate(states), np.concatenate(targets)

    (x, y), (x_valid, y_valid) = samples(train), samples(valid)
    of_states = np.arange(x.shape[1]) % decoder.encoder.dim_features < decoder.encoder.dim

    def fitted(read: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        weights = np.zeros((x.shape[1], y.shape[1]))
        weights[read], bias = fit_ridge(x[:, read], y, x_valid[:, read], y_valid).on_raw_inputs()
        return float(((x_valid @ weights + bias - y_valid) ** 2).mean()), weights, bias

    kinds = [of_states] if of_states.all() else [of_states, np.ones_like(of_states)]
    _, weights, bias = min(map(fitted, kinds), key=lambda fit: fit[0])
    decoder.readout.weight.copy_(torch.from_numpy(weights.T))
    decoder.readout.bias.copy_(torch.from_numpy(bias))
    return decoder
