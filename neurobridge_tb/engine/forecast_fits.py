"""What of a forecaster is fitted outside of its training: the rate filter before it, the residual's gain after it."""

import copy

import torch
from torch.utils.data import DataLoader

from neurobridge_tb.devices import compute
from neurobridge_tb.engine.strangers import SimulatedStrangers
from neurobridge_tb.estimators.smoothed_rate import SmoothedRate
from neurobridge_tb.models import NeuroHorizonModel
from neurobridge_tb.scoring.forecasts import rolled_out_loss

_FIT_EPOCHS, _FIT_RATE = 4, 0.1
GAINS = (0.0, 0.25, 0.5, 0.75, 1.0)


def fit_rate_filter(
    model: NeuroHorizonModel,
    train: DataLoader,
    valid: DataLoader,
    baseline: SmoothedRate,
    strangers: SimulatedStrangers | None,
    *,
    processes: int = 1,
) -> None:
    """Find the weights of the model's rate filter, where the training starts, by the likelihood of training windows.

    They begin at the smoothed rate drawn to the recent mean, and stay there if that is better in validation.

    Args:
        model: Its units are known. Nothing but its filter learns.
        train: Training windows.
        valid: Validation windows.
        baseline: That smoothed rate, its settings chosen on the validation windows.
        strangers: Draws references in each pass, where units are identified by features.
        processes: That many batches make a step, as they do in a training by so many processes. Default 1.
    """
    assert baseline.constant is not None
    rates = model.rate_filter
    rates.set_to(constant=baseline.constant, prior=baseline.prior, decay=baseline.decay, strength=baseline.strength)
    first, loss = copy.deepcopy(rates.state_dict()), rolled_out_loss(model, valid, start=True)
    optimizer = torch.optim.Adam(rates.parameters(), lr=_FIT_RATE)
    steps = _FIT_EPOCHS * max(len(train) // processes, 1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    for epoch in range(_FIT_EPOCHS):
        if strangers is not None:
            strangers.begin(epoch)
        for batches in zip(*[iter(train)] * processes, strict=False):  # what is left over makes no step
            cells = [batch["target_mask"].sum() for batch in batches]
            optimizer.zero_grad()
            for batch, n in zip(batches, cells, strict=True):
                (model.loss(model.start(**batch["model_inputs"]), batch) * (n / sum(cells))).backward()
            optimizer.step()
            schedule.step()
    if strangers is not None:
        strangers.end()
    if rolled_out_loss(model, valid, start=True) > loss:
        rates.load_state_dict(first)


@torch.no_grad()
def fit_residual_gain(model: NeuroHorizonModel, valid: DataLoader) -> None:
    """Set the residual's gain in each quarter of the future: the least that is as good as the best, of ``GAINS``.

    As good is a loss within one standard error, over windows, of the best one (Breiman et al. 1984): validation windows
    are few, and a residual that is too sure costs more than one that is too cautious. Rolled out with the gains, a bin
    reads other rates of the bins before it than those that the choice was made with.

    Args:
        model: Trained, in evaluation mode; its gains are 1.
        valid: Validation windows.
    """
    parts = torch.nn.functional.one_hot(model.gain_parts(0, model.n_future).cpu(), len(model.residual_gain)).double()
    losses = []
    for batch in valid:
        inputs, counts = batch["model_inputs"], batch["target_values"]
        start = compute(model.start, **inputs)
        residual = compute(model.generate, **inputs) - start
        tried = (start + gain * residual for gain in GAINS)
        cells = torch.stack([(x.exp() - counts * x) * batch["target_mask"] for x in tried])
        losses.append(cells.sum(3).double() @ parts)
    loss = torch.cat(losses, dim=1)  # (gains, windows, parts)
    best = loss.sum(1).argmin(0)
    worse = loss - loss.gather(0, best.expand(1, loss.shape[1], -1))
    as_good = worse.sum(1) <= worse.std(1, correction=0) * loss.shape[1] ** 0.5
    model.residual_gain.copy_(torch.tensor(GAINS)[as_good.int().argmax(0)])
