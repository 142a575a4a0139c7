"""Adapting a trained model to new recordings: their units and sessions get rows of their own."""

import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding
from neurobridge_tb.configs.adapt import AdaptConfig
from neurobridge_tb.engine.config import files_of, open_dataset, settle
from neurobridge_tb.engine.masked_training import train_masked
from neurobridge_tb.engine.optim import Group, factors_apart
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.engine.starts.factor_start import start_from_factor_analysis
from neurobridge_tb.engine.starts.response_start import fit_rate_response
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroBridgeModel


def adapt(config: AdaptConfig | None = None, /, **settings: Any) -> Path:
    """Go on with a trained model on new recordings, or resume that; returns the run folder.

    Units and recordings that the model does not know get new rows; all other rows stay as they are, unless they are in
    the new data. Two modes:

    - ``units``: only rows of units and recordings learn, everything else is frozen (unit re-identification, Azabou et
      al. 2023, https://arxiv.org/abs/2310.16046).
    - ``gradual``: rows learn from the start, then the decoder, the layers from the last to the first, and at last the
      input join in (gradual unfreezing, Howard and Ruder 2018, arXiv:1801.06146), see :func:`gradual_unfreezing`.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`AdaptConfig`.
        **settings: Settings by name, e.g. ``root="processed/tuesday", mode="gradual"``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(AdaptConfig, config, settings)
    began, dataset = time.monotonic(), open_dataset(config.dataset)
    run = RunFolder(config, files_of(dataset))
    L.seed_everything(config.seed, verbose=False)
    model = NeuroBridgeModel.from_pretrained(config.pretrained)
    known, train = set(model.unit_emb.vocab), dataset.get_sampling_intervals("train")
    model.extend_vocabs(dataset)
    model.fit_unit_statistics(dataset, train)
    if run.resumed is None:
        run.note("factors.json", start_from_factor_analysis(model, dataset, train, known=known, seed=config.seed))
        fit_rate_response(model, dataset, train, dataset.get_sampling_intervals("valid"), config)
    if config.mode == "units":
        groups = units_alone(model, lr=config.optimizer.lr, factor_lr=config.optimizer.factor_lr)
    elif config.mode == "gradual":
        groups = gradual_unfreezing(
            model,
            lr=config.optimizer.lr,
            factor_lr=config.optimizer.factor_lr,
            body_lr=config.optimizer.body_lr,
            first=config.unfreeze.first,
            last=config.unfreeze.last,
        )
    else:
        raise InputError(expected="mode=units or mode=gradual", found=repr(config.mode), fix="Correct the mode.")
    return train_masked(config, run, dataset, model, groups=groups, began=began)


def units_alone(model: NeuroBridgeModel, *, lr: float, factor_lr: float) -> Callable[[int], list[Group]]:
    """Freeze everything but the rows of units and recordings; returns what is trained.

    Args:
        model: Its parameters lose their ``requires_grad``.
        lr: Highest learning rate of the rows.
        factor_lr: That of the factor model's rows.
    """
    rows = _rows(model)
    model.requires_grad_(False)
    for parameter in rows.values():
        parameter.requires_grad_(True)
    return lambda total_steps: factors_apart(rows.items(), lr, factor_lr)


def gradual_unfreezing(
    model: NeuroBridgeModel, *, lr: float, factor_lr: float, body_lr: float, first: float, last: float
) -> Callable[[int], list[Group]]:
    """Rows of units and recordings train from the start; the rest joins in, part by part, from the output backwards.

    The parts are the decoder, each processing layer from the last to the first, and all that is before them. They start
    at equal distances from ``first`` to ``last``, each with a warm-up of its own.

    Args:
        model: What is trained.
        lr: Highest learning rate of the rows.
        factor_lr: That of the factor model's rows.
        body_lr: Highest learning rate of everything else.
        first: Share of all steps after which the decoder starts.
        last: Share of all steps after which the input starts.

    Returns:
        The groups, given the steps of the whole training.
    """
    if not 0 <= first <= last < 1:
        raise InputError(
            expected="0 <= unfreeze.first <= unfreeze.last < 1",
            found=f"unfreeze.first={first}, unfreeze.last={last}",
            fix="Give shares of the training, e.g. unfreeze.first=0.2 unfreeze.last=0.6.",
        )
    rows = _rows(model)
    parts = [f"proc_layers.{k}." for k in reversed(range(len(model.proc_layers)))]
    body = [(name, p) for name, p in model.named_parameters() if name not in rows]
    stages = [[(n, p) for n, p in body if n.startswith(part)] for part in ("decoder.", *parts)]
    placed = {name for name, _ in chain(*stages)}
    stages.append([(n, p) for n, p in body if n not in placed])
    shares = np.linspace(first, last, len(stages))
    return lambda total_steps: [
        *factors_apart(rows.items(), lr, factor_lr),
        *(Group(stage, body_lr, round(share * total_steps)) for stage, share in zip(stages, shares, strict=True)),
    ]


def _rows(model: NeuroBridgeModel) -> dict[str, nn.Parameter]:
    """Tables that have a row for each unit or recording; those of statistics are not trained."""
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, InfiniteVocabEmbedding) and module.weight.requires_grad
    }
