"""Composing a run's config from the packaged Hydra configs and overrides."""

from hydra import compose, initialize_config_module
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from neurobridge_tb._upstream import Dataset
from neurobridge_tb.errors import InputError, NeuroBridgeError


def compose_config(job: str, overrides: list[str]) -> DictConfig:
    """Config of a job, e.g. ``compose_config("pretrain", ["model=tiny", "trainer.max_epochs=2"])``.

    Args:
        job: Name of a file in ``neurobridge_tb/configs``.
        overrides: Hydra overrides.

    Returns:
        The config, with the command that it belongs to under ``command``.

    Raises:
        InputError: An override names nothing that exists, or a required setting is missing.
    """
    try:
        with initialize_config_module("neurobridge_tb.configs", version_base="1.3"):
            config = compose(job, overrides)
        if missing := OmegaConf.missing_keys(config):
            raise InputError(
                expected=f"a value for {', '.join(sorted(missing))}",
                found="none",
                fix=f"Give it as NAME=VALUE; `neurobridge {job} --help` shows the config.",
            )
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(
            expected=f"overrides that fit the config of `neurobridge {job}`",
            found=f"{' '.join(overrides)} ({str(error).splitlines()[0]})",
            fix=f"`neurobridge {job} --help` shows the config and its groups.",
        ) from error
    with open_dict(config):
        config.command = " ".join(["neurobridge", job.replace("_", "-"), *overrides])
    return config


def open_dataset(config: DictConfig) -> Dataset:
    """The Dataset that ``config.dataset`` describes."""
    try:
        return instantiate(config.dataset)
    except InstantiationException as error:
        if isinstance(error.__cause__, NeuroBridgeError):
            raise error.__cause__ from None
        raise InputError(
            expected="a dataset that can be opened",
            found=f"{config.dataset._target_}: {error.__cause__}",
            fix="Set dataset.root=<folder given to `brainsets prepare` as --processed-dir>.",
        ) from error
