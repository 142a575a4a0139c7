"""A setting: a dataclass field with its default, its meaning and its unit."""

import copy
from dataclasses import dataclass, field, is_dataclass
from typing import Any, ClassVar

REQUIRED: Any = "???"  # OmegaConf's mark of a value that has to be given


def setting(default: Any, help: str, *, path: bool = False, source: bool = False) -> Any:
    """A dataclass field.

    Args:
        default: Its default; ``REQUIRED`` where there is none.
        help: What it means, with its unit; ``--help`` prints it.
        path: It says where something lies, not what is computed: a run goes on though it has changed. Default False.
        source: A path whose contents matter: a run goes on only with the same contents. Default False.
    """
    metadata = {"help": help, "path": path or source, "source": source}
    if is_dataclass(default) or isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class JobConfig:
    """What every job has.

    Attributes:
        groups: Groups of presets that the job has, with the preset that is taken by default.
    """

    groups: ClassVar[dict[str, str]] = {}

    command: str = setting("", "The call, noted with the results; filled in.", path=True)
    device: str = setting("auto", "Where networks compute: cpu, cuda, cuda:1, mps; auto: the best there is.")
    precision: str = setting(
        "32-true", "32-true, tf32 (matrices, on recent NVIDIA cards), bf16-mixed or 16-mixed (where it is safe)."
    )


@dataclass
class RunConfig(JobConfig):
    """A job with a folder of its own.

    Attributes:
        is_locked: Its folder is one run's until that ends. Otherwise the job looks to it itself.
    """

    is_locked: ClassVar[bool] = True

    run_dir: str = setting(REQUIRED, "Folder of the run.", path=True)
    seed: int = setting(0, "Seed of everything random.")
