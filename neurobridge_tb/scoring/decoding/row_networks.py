"""Networks that learn a column of a table from activity: the encoder fine-tuned, and a GRU on binned activity."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.arrays import Floats, Standardizer
from neurobridge_tb.data.row_features import Bounds, Piece, latent_steps, row_pieces
from neurobridge_tb.data.targets import Examples
from neurobridge_tb.estimators.linear_decoders import fit_logistic, fit_value_ridge
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.models.recording_grid import read_spans
from neurobridge_tb.scoring.decoding.decoding_splits import Decoded, Parts

_EPOCHS, _PATIENCE, _BATCH = 30, 5, 32
_INNER = 5  # one training row in so many stops the training
_LR, _GRU_LR, _DECAY = 3e-4, 2e-3, 0.05
_GRU_WIDTH, _DROPOUT = 64, 0.3
_NEVER = -20.0  # logit of a class that no training row has

Network = Callable[[NDArray[np.intp]], Tensor]


def decode_fine_tuned(
    model: NeuroBridgeModel, dataset: Dataset, examples: Examples, bounds: Bounds, parts: Parts, frozen: Floats, *,
    seed: int,
) -> Decoded:  # fmt: skip
    """The encoder and a linear read-out of its latents, averaged over a window, trained together.

    The read-out starts at a regression on the frozen latents; the start is one of the epochs to choose from.

    Args:
        model: The encoder; a copy is trained.
        dataset: The recordings.
        examples: n rows.
        bounds: (n, 2) window of each in s.
        parts: Training and test rows of each fit.
        frozen: (n, J * D) latents of the rows.
        seed: Of the order of rows, and of which of them stop the training.
    """
    pieces: list[list[Piece]] = [[] for _ in range(len(examples))]
    for recording in np.unique(examples.recording):
        rows = np.flatnonzero(examples.recording == recording)
        for piece in row_pieces(model, dataset, str(recording), bounds[rows]):
            pieces[rows[piece.row]].append(piece)

    def build(rows: NDArray[np.intp], scale: _Scale) -> tuple[nn.Module, Network]:
        encoder, (inputs, weight, bias) = copy.deepcopy(model), _regression(frozen[rows], examples.label[rows], scale)
        readout = nn.Linear(*weight.shape[::-1])
        readout.weight.data.copy_(torch.from_numpy(weight))
        readout.bias.data.copy_(torch.from_numpy(bias))
        mean, std = (torch.tensor(x, dtype=torch.float32) for x in (inputs.mean, inputs.std))

        def network(rows: NDArray[np.intp]) -> Tensor:
            some = [(place, piece) for place, row in enumerate(rows) for piece in pieces[row]]
            steps = latent_steps(encoder, [piece for _, piece in some])
            inside = torch.zeros(steps.shape[:2])
            for mask, (_, piece) in zip(inside, some, strict=True):
                mask[: len(piece.steps)] = torch.from_numpy(piece.steps)
            place = torch.tensor([place for place, _ in some])
            total = torch.zeros(len(rows), steps.shape[2]).index_add(0, place, (steps * inside[..., None]).sum(1))
            count = torch.zeros(len(rows)).index_add(0, place, inside.sum(1))
            return readout((total / count.clamp_min(1)[:, None] - mean) / std)

        return nn.ModuleList([encoder, readout]), network

    return _decode(examples, parts, build, lr=_LR, seed=seed)


def decode_gru(
    model: NeuroBridgeModel, dataset: Dataset, examples: Examples, bounds: Bounds, parts: Parts, *, seed: int
) -> Decoded:
    """A GRU over the bins of a window, from random weights; arguments as :func:`decode_fine_tuned` takes them.

    Of one recording, whose units are its inputs; bins are the model's.
    """
    recording, order = dataset.get_recording(dataset.recording_ids[0]), np.argsort(bounds[:, 0], kind="stable")
    grids: list[NDArray[np.float32]] = []
    for block, lengths in read_spans(model, recording, *bounds[order].T):
        grids += np.split(block, np.cumsum(lengths)[:-1])
    longest, n_units = max(map(len, grids)), grids[0].shape[1]
    standardize = Standardizer.fit(np.concatenate(grids))
    inputs = torch.zeros(len(grids), longest, n_units)  # a shorter window begins with the mean
    for row, values in zip(order, grids, strict=True):
        inputs[row, longest - len(values) :] = torch.tensor(standardize(values), dtype=torch.float32)

    def build(rows: NDArray[np.intp], scale: _Scale) -> tuple[nn.Module, Network]:
        gru, dropout = nn.GRU(n_units, _GRU_WIDTH, batch_first=True), _DROPOUT
        readout = nn.Linear(_GRU_WIDTH, max(1, len(scale.classes)))

        def network(rows: NDArray[np.intp]) -> Tensor:
            states, _ = gru(F.dropout(inputs[rows], dropout, gru.training))
            return readout(F.dropout(states.mean(1), dropout, gru.training))

        return nn.ModuleList([gru, readout]), network

    return _decode(examples, parts, build, lr=_GRU_LR, seed=seed)


@dataclass(frozen=True)
class _Scale:
    """Classes of a target, or mean and deviation of its training values."""

    classes: NDArray[np.str_]
    mean: float = 0.0
    std: float = 1.0


def _regression(x: Floats, labels: NDArray, scale: _Scale) -> tuple[Standardizer, Floats, Floats]:
    """How features (n, d) are standardised, and weights (width, d) and bias (width,) of a regression on them."""
    if not len(scale.classes):
        ridge = fit_value_ridge(x, labels)
        return ridge.inputs, ridge.weights[None] / scale.std, np.array([(ridge.offset - scale.mean) / scale.std])
    fitted = fit_logistic(x, labels)
    known = np.searchsorted(scale.classes, fitted.classes)
    if len(known) == 2:  # one logit tells two classes apart
        known = known[1:]
    weight, bias = np.zeros((len(scale.classes), x.shape[1])), np.full(len(scale.classes), _NEVER)
    bias[np.searchsorted(scale.classes, fitted.classes)] = 0.0
    weight[known], bias[known] = fitted.model.coef_ @ fitted.axes.T, fitted.model.intercept_
    return fitted.inputs, weight, bias


def _decode(
    examples: Examples,
    parts: Parts,
    build: Callable[[NDArray[np.intp], _Scale], tuple[nn.Module, Network]],
    *,
    lr: float,
    seed: int,
) -> Decoded:
    """Train a network of its own for each part, and decode its test rows."""
    classes = np.unique(examples.label) if examples.are_classes else np.array([], dtype=str)
    outputs = []
    for train, test in parts:
        rows = np.random.default_rng(seed).permutation(train)
        valid, fitted = np.split(rows, [-(-len(rows) // _INNER)])
        if examples.are_classes:
            scale, target = _Scale(classes), torch.from_numpy(np.searchsorted(classes, examples.label))
        else:
            scale = _Scale(classes, float(examples.label[train].mean()), float(examples.label[train].std()))
            target = torch.tensor((examples.label - scale.mean) / scale.std, dtype=torch.float32)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            parameters, network = build(fitted, scale)
            _train(parameters, network, target, fitted, valid, lr)
        parameters.eval()
        with torch.no_grad():
            output = torch.cat([network(some) for some in _batches(test)]).double()
        outputs.append(output.softmax(1).numpy() if len(classes) else output[:, 0].numpy() * scale.std + scale.mean)
    return Decoded(np.concatenate([test for _, test in parts]), classes, np.concatenate(outputs))


def _train(
    parameters: nn.Module, network: Network, target: Tensor, rows: NDArray[np.intp], valid: NDArray[np.intp], lr: float
) -> None:
    """AdamW until the loss on the validation rows stops falling; the best epoch, or the start, stays."""

    def loss(some: NDArray[np.intp]) -> Tensor:
        output = network(some)
        if target.is_floating_point():
            return F.mse_loss(output[:, 0], target[some], reduction="sum")
        return F.cross_entropy(output, target[some], reduction="sum")

    @torch.no_grad()
    def error() -> float:
        parameters.eval()
        return sum(float(loss(some)) for some in _batches(valid))

    optimizer = torch.optim.AdamW(parameters.parameters(), lr=lr, weight_decay=_DECAY)
    best, state, waited = error(), copy.deepcopy(parameters.state_dict()), 0
    for _ in range(_EPOCHS):
        parameters.train()
        for some in _batches(rows[torch.randperm(len(rows)).numpy()]):
            optimizer.zero_grad()
            (loss(some) / len(some)).backward()
            nn.utils.clip_grad_norm_(parameters.parameters(), 1.0)
            optimizer.step()
        now, waited = error(), waited + 1
        if now < best:
            best, state, waited = now, copy.deepcopy(parameters.state_dict()), 0
        if waited == _PATIENCE:
            break
    parameters.load_state_dict(state)


def _batches(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return np.split(rows, np.arange(_BATCH, len(rows), _BATCH))
