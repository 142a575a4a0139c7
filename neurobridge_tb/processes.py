"""Several processes of one training: which of them writes."""

import os

_RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # as launchers number processes


def is_first_process() -> bool:
    """Whether this process writes: the only one, or the first of a distributed run."""
    return not any(int(os.environ.get(name, 0)) for name in _RANKS)
