"""Choosing among models by their losses on held-out rows; in doubt the simplest one stays."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

from neurobridge_tb.arrays import Floats

Name = TypeVar("Name", bound=Hashable)
_CHANCE = 0.025  # that one of the others is chosen where none is better


def least_loss(losses: Mapping[Name, Floats], *, simplest: Name) -> Name:
    """The model of least mean loss, or the simplest unless that is better beyond doubt.

    Few rows choose badly among many models, so the best must beat the simplest by more than chance would let one of
    them do: by a one-sided paired t-test, corrected for the number of others (Bonferroni). It is the
    one-standard-error rule of Breiman et al. (1984), with as many standard errors as there are models to choose from:
    2 for one other and many rows, 2.9 for 14.

    Args:
        losses: (n,) of each model, on the same n rows.
        simplest: Name of the one that stays in doubt.
    """
    from scipy.stats import t

    best = min(losses, key=lambda name: float(losses[name].mean()))
    gain = losses[simplest] - losses[best]
    if best == simplest or len(gain) < 2:
        return simplest
    errors = t.isf(_CHANCE / (len(losses) - 1), len(gain) - 1)
    return best if gain.mean() > errors * gain.std(ddof=1) / np.sqrt(len(gain)) else simplest
