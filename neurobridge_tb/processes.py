"""Several processes of one training: which of them writes."""

import os

_RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # as launchers number processes


def is_first_process() -> bool:
    """Whether this process writes: the only one, or the first of a distributed run."""
    return not any(_rank(name) for name in _RANKS)


def _rank(name: str) -> int:
    """What a variable numbers this process; 0 where it is not set, or says something else."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
