"""Fixed masks for evaluation: the same for every window, run and model, so that scores can be compared.

Co-smoothing and forward prediction are the Neural Latents Benchmark's (Pei et al. 2021, arXiv:2109.04463), the regional
tasks MtM's (Zhang et al. 2024, arXiv:2407.14668).
"""

import numpy as np
from numpy.typing import NDArray

from neurobridge_tb.errors import InputError
from neurobridge_tb.masking.schemes import UNNAMED, Mask

TASKS = ("co_smoothing", "forward", "intra_region", "inter_region")
_MIN_UNITS = 10  # an area with fewer has no regional task
_FORWARD_SHARE = 0.2  # of a window's bins are targets


def task_masks(
    task: str, n_bins: int, areas: NDArray[np.str_], *, held_out: int = 24, max_targets: int = 64, seed: int = 0
) -> list[Mask]:
    """Masks of a task for windows of ``n_bins`` bins.

    - ``co_smoothing``: ``held_out`` units, ``default_rng(seed).permutation(N)[:held_out]``, in all bins.
    - ``forward``: the last fifth of the bins, of all units, from the bins before.
    - ``intra_region``: for each area, half of its units from its other half alone.
    - ``inter_region``: for each area, its units from those of all other areas.

    Args:
        task: One of ``TASKS``.
        n_bins: Bins of the window, T.
        areas: (N,) area of each unit; units without one ("" or "root") are seen in no intra-region task and always in
            inter-region tasks.
        held_out: Units of the co-smoothing task. Default 24.
        max_targets: At most so many units of an area are targets; the others are hidden all the same. Default 64.
        seed: Seed of the choice of units.

    Raises:
        InputError: There is no such task, or the recording has too few units or areas for it.
    """
    n_units, shape = len(areas), (n_bins, len(areas))
    rng = np.random.default_rng(seed)

    def columns(seen: NDArray, target: NDArray, name: str) -> Mask:
        return Mask(name, np.broadcast_to(seen, shape), np.broadcast_to(target, shape))

    if task == "co_smoothing" and held_out < n_units:
        target = np.isin(np.arange(n_units), rng.permutation(n_units)[:held_out])
        return [columns(~target, target, task)]
    if task == "forward" and n_bins >= 2:
        target = np.zeros(shape, dtype=bool)
        target[-max(1, round(_FORWARD_SHARE * n_bins)) :] = True
        return [Mask(task, ~target, target)]
    masks = []
    names, counts = np.unique(areas, return_counts=True)
    regional = task in ("intra_region", "inter_region")
    for area in names[regional & (counts >= _MIN_UNITS) & ~np.isin(names, UNNAMED)]:
        members = rng.permutation(np.flatnonzero(areas == area))
        seen = areas != area
        if task == "intra_region":
            members, partners = np.split(members, [len(members) // 2])
            seen = np.isin(np.arange(n_units), partners)
        if seen.any():
            masks.append(columns(seen, np.isin(np.arange(n_units), members[:max_targets]), f"{task}/{area}"))
    if not masks:
        sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
        raise InputError(
            expected=f"a task among {', '.join(TASKS)}, more than {held_out} units for co-smoothing, two bins for "
            f"forward prediction, areas of at least {_MIN_UNITS} units for the regional tasks",
            found=f"task '{task}', {n_bins} bins, {n_units} units, areas {sizes}",
            fix="Choose other tasks=[…], or fewer held_out units.",
        )
    return masks
