"""Settings: one way from Python, the command line and Hydra; what does not exist is refused with the nearest name."""

import inspect
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import get_args, get_type_hints

import pytest
from omegaconf import OmegaConf

from neurobridge_tb import ImageAligner, NeuroBridgeModel, NeuroHorizonModel
from neurobridge_tb.configs.align import ReadoutConfig
from neurobridge_tb.configs.catalog import JOBS
from neurobridge_tb.configs.listing import setting_lines
from neurobridge_tb.configs.models import ForecasterConfig, ModelConfig, NetworkConfig
from neurobridge_tb.configs.parts import TrainerConfig
from neurobridge_tb.configs.pretrain import PretrainConfig
from neurobridge_tb.configs.ranges import ABOVE_0, FROM_0, FROM_1, SHARES, WITHIN_A_DAY
from neurobridge_tb.configs.reconstruct import (
    FlowConfig,
    IpAdapterConfig,
    SdAdapterConfig,
    StableUnclipConfig,
)
from neurobridge_tb.engine.config import compose_config, open_dataset, settle
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.flow import FlowDecoder
from neurobridge_tb.generation.ip_adapter import IpAdapter
from neurobridge_tb.generation.sd_adapter import SdAdapter
from neurobridge_tb.generation.stable_diffusion import StableDiffusion
from neurobridge_tb.generation.stable_unclip import StableUnclip

BINNED = {"dataset": "binned", "root": "processed"}


def test_python_and_the_command_line_mean_the_same():
    typed = compose_config(
        "pretrain",
        ["dataset=binned", "dataset.root=processed", "model=tiny", "model.depth=2", "masking.causal=2.0", "seed=3",
         "trainer.max_epochs=7", "model.modality=[mua,spike_counts]"],
    )  # fmt: skip
    called = settle(
        PretrainConfig, None,
        {**BINNED, "model": "tiny", "depth": 2, "masking": {"causal": 2.0}, "seed": 3, "max_epochs": 7,
         "modality": ["mua", "spike_counts"]},
    )  # fmt: skip
    assert typed.command.startswith("neurobridge pretrain dataset=binned")
    assert called.command.startswith("pretrain(dataset='binned', root='processed'")
    typed.command = called.command = ""
    assert typed == called
    assert typed.model.dim == 32 and typed.masking == {"temporal": 1.0, "neuron": 1.0, "causal": 2.0}
    assert typed.windows == "continuous" and typed.model.sequence_length == 1.0  # of the dataset's presets


def test_a_saved_config_is_complete(tmp_path):
    config = settle(PretrainConfig, None, BINNED)
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    again = settle(PretrainConfig, OmegaConf.load(tmp_path / "config.yaml"), {"model": {"depth": 2}})
    assert again.model.depth == 2 and again.dataset == config.dataset and again.command == config.command


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("datset=binned", "Did you mean dataset"),
        ("dataset=bined", "Did you mean binned"),
        ("model=smalls", "Did you mean small"),
        ("+compiled=true", "a setting of `pretrain`"),
        ("+optimizer.learning_rate=5", "Did you mean optimizer.lr"),
        ("trainer.max_epoch=5", "Did you mean trainer.max_epochs"),
        ("model.depht=5", "Did you mean model.depth"),
        ("+masking.nuron=1", "Did you mean masking.neuron"),
        ("loader.workers=1", "Did you mean loader.num_workers"),
        ("model.depth=deep", "a value that fits model.depth"),
        ("weights=1", "a setting of `pretrain`"),
        ("--seed=0", "settings as NAME=VALUE"),
        ("~masking.neuron", "settings as NAME=VALUE"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest_name(argument, message):
    with pytest.raises(InputError, match=message):
        compose_config("pretrain", ["root=processed", argument])
    if argument[0] not in "-~":
        name, _, value = argument.lstrip("+").partition("=")
        with pytest.raises(InputError, match=message):
            settle(PretrainConfig, None, {"root": "processed", name: value})


def test_a_short_name_of_several_settings_is_refused():
    with pytest.raises(InputError, match=r"one of stage1.epochs, stage2.epochs"):
        compose_config("align", ["embeddings=e.h5", "epochs=3"])


def test_options_of_backends_are_settings_too():
    arguments = ["embeddings=e.h5", "images=i"]
    with pytest.raises(InputError, match=r"Did you mean flow.candidates"):
        compose_config("reconstruct", [*arguments, "+flow.candidate=1"])
    config = compose_config("reconstruct", [*arguments, "options.mine.steps=20"])
    assert config.options == {"mine": {"steps": 20}}


@pytest.mark.parametrize("path", ["/home/müller/demo", "demo (1)", "a=b", "R&D", "it's", "a, b", "[x]", "x{y}", "a\\b"])
def test_text_stands_for_itself(path):
    config = compose_config("pretrain", ["dataset=binned", f"dataset.root={path}", f"run_dir={path}/run"])
    assert config.dataset.root == path and config.run_dir == f"{path}/run"
    assert compose_config("pretrain", [f"run_dir='{path[:1]} b'", "warm_start=null"]).warm_start is None


def test_recordings_are_left_out_by_name(binned_root):
    def opened(*names):
        config = settle(PretrainConfig, None, {"dataset": "binned", "root": binned_root, "leave_out": list(names)})
        return open_dataset(config.dataset)

    assert opened("session0").recording_ids == ["session1"]
    for wrong in (["session9"], ["session0", "session1"]):
        with pytest.raises(InputError, match="dataset.leave_out with some, not all, of session0, session1"):
            opened(*wrong)


def test_an_argument_that_a_dataset_does_not_take_is_refused(binned_root):
    config = settle(
        PretrainConfig, None, {"dataset": "binned", "root": binned_root, "dataset.arguments": {"variants": 1}}
    )
    with pytest.raises(InputError, match="variants"):
        open_dataset(config.dataset)


@pytest.mark.parametrize(
    ("config", "function", "others"),
    [
        (ModelConfig, NeuroBridgeModel, {"dim_out", "bin_widths"}),
        (ForecasterConfig, NeuroHorizonModel, set()),
        (ReadoutConfig, ImageAligner, {"encoder", "image_encoder", "preprocessing_hash", "dim_embedding", "layers"}),
    ],
)
def test_the_settings_of_a_model_are_its_arguments(config, function, others):
    parameters = inspect.signature(function).parameters
    assert {f.name for f in fields(config)} == set(parameters) - others


def test_the_settings_of_trainer_and_encoder_exist():
    from lightning import Trainer  # after neurobridge_tb.engine, which prepares torchvision

    assert {f.name for f in fields(TrainerConfig)} <= set(inspect.signature(Trainer).parameters)
    assert {f.name for f in fields(NetworkConfig)} <= set(inspect.signature(NeuroBridgeModel).parameters)


@pytest.mark.parametrize(
    ("config", "generator"),
    [
        (FlowConfig, FlowDecoder),
        (StableUnclipConfig, StableUnclip),
        (SdAdapterConfig, SdAdapter),
        (IpAdapterConfig, IpAdapter),
    ],
)
def test_the_settings_of_a_backend_are_its_options(config, generator):
    takers = [generator, getattr(generator, "load", generator), StableDiffusion]
    options = {name for taker in takers for name in inspect.signature(taker).parameters}
    assert {f.name for f in fields(config)} <= options


@pytest.mark.parametrize("job", JOBS)
def test_every_setting_says_what_it_means(job):
    lines = [line for part in setting_lines(JOBS[job]).values() for line in part]
    assert lines and all(help.endswith(".") for _, help in lines)


def test_a_job_that_there_is_not_is_named():
    with pytest.raises(InputError, match="Did you mean pretrain"):
        compose_config("pretrian", [])


@pytest.mark.parametrize(
    ("job", "setting", "message"),
    [
        ("pretrain", "model.ffn_dropout=2", "model.ffn_dropout from 0 to 1"),
        ("pretrain", "model.cross_heads=0", "model.cross_heads 1 or more"),
        ("pretrain", "model.num_factors=-1", "model.num_factors 0 or more"),
        ("pretrain", "model.t_max=nan", "model.t_max above 0"),
        ("pretrain", "trainer.limit_val_batches=0", "trainer.limit_val_batches above 0"),
        ("pretrain", "loader.batch_size=-1", "loader.batch_size 0 or more"),
        ("forecast", "model.encoder.self_heads=-1", "model.encoder.self_heads 1 or more"),
        ("align", "stage2.replay_batch=0", "stage2.replay_batch 1 or more"),
        ("forecast", "model.history=1e30", "model.history above 0 and at most 86400"),
        ("forecast", "glm_horizons=[0.1,nan]", "glm_horizons above 0 and at most 86400"),
        ("pretrain", "masking.neuron=-1", "weights of masking schemes of 0 or more[\\s\\S]*masking.neuron=-1"),
        ("pretrain", "masking={neuron:0,intra_region:0,inter_region:0}", "some above 0"),
        ("embed", "batch_size=0", "batch_size 1 or more"),
    ],
)
def test_numbers_out_of_range_are_named(job, setting, message):
    given = ["images=i", "out=o.h5"] if job == "embed" else ["dataset.root=r"]
    given += ["embeddings=e"] if job == "align" else []
    with pytest.raises(InputError, match=message):
        compose_config(job, [*given, setting])


def test_every_number_has_a_range_or_a_reason():
    """Those of ``free`` are checked elsewhere, or mean something below 0 too."""
    free = {"seed", "max_epochs", "max_steps", "num_sanity_val_steps"}
    free |= {"labels", "folds", "bins", "candidates", "train_share"}
    ranged = {name.rpartition(".")[2] for name in SHARES | FROM_0 | FROM_1 | ABOVE_0 | WITHIN_A_DAY} | free
    assert {name for kind in JOBS.values() for name in _numbers_of(kind)} <= ranged


def _numbers_of(kind):
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from _numbers_of(hint)
        elif {int, float} & set(get_args(hint) if isinstance(hint, UnionType) else (hint,)):
            yield name
