"""Presets: what ``dataset=tvsd``, ``model=small`` or ``forecaster=laptop`` stand for."""

from typing import Any

Preset = dict[str, Any]

_DATASETS = "neurobridge_tb.datasets"
_WITH_AREAS = {"neuron": 1.0, "intra_region": 1.0, "inter_region": 1.0}
_WITHOUT_AREAS = {"temporal": 1.0, "neuron": 1.0}

# Which recordings, how windows lie in them, and how they are masked.
DATASETS: dict[str, Preset] = {
    # Spikes, prepared by `brainsets prepare allen_visual_coding_neuropixels_2019`.
    "allen": {
        "dataset": {"_target_": f"{_DATASETS}.AllenVisualCodingNeuropixels2019", "root": None},
        "windows": "continuous",
        "masking": {"temporal": 1.0, **_WITH_AREAS},
    },
    # Your own recordings, made with neurobridge_tb.datasets.build_recording.
    "binned": {
        "dataset": {"_target_": f"{_DATASETS}.BinnedRecordings"},
        "windows": "continuous",
        "masking": _WITHOUT_AREAS,
    },
    # BrainWideBench's published recordings; dataset.arguments.regime=eval: those that it scores.
    "bwb": {
        "dataset": {"_target_": f"{_DATASETS}.IblBrainWideBench2026", "root": None},
        "windows": "continuous",
        "masking": {"causal": 1.0, **_WITH_AREAS},
    },
    # Spikes and the wheel, prepared by `brainsets prepare ibl_brain_wide_map_2025`.
    "ibl": {
        "dataset": {"_target_": f"{_DATASETS}.IblBrainWideMap2025", "root": None},
        "windows": "continuous",
        "masking": _WITHOUT_AREAS,
    },
    # MC_Maze of the Neural Latents Benchmark, imported by `neurobridge import nlb`.
    "nlb": {
        "dataset": {"_target_": f"{_DATASETS}.BinnedRecordings"},
        "windows": "trial",
        "masking": {"neuron": 1.0, "causal": 1.0},
    },
    # One value a channel and presentation, prepared by `brainsets prepare tvsd`.
    "tvsd": {"dataset": {"_target_": f"{_DATASETS}.Tvsd", "root": None}, "windows": "trial", "masking": _WITH_AREAS},
    # 0.3 s in bins of 10 ms around each presentation, prepared by `brainsets prepare tvsd -s monkeyF_trials`.
    "tvsd_trials": {
        "dataset": {"_target_": f"{_DATASETS}.Tvsd", "root": None, "arguments": {"variant": "trials"}},
        "windows": "trial",
        "masking": {"temporal": 1.0, **_WITH_AREAS},
    },
}

# What a model reads of the windows of a dataset.
_ONE_SECOND = {"sequence_length": 1.0, "latent_step": 0.125, "num_latents_per_step": 8}
WINDOWS: dict[str, Preset] = {
    "allen": {"modality": "spikes", **_ONE_SECOND, "bin_size": 0.05},
    "binned": {"modality": "spike_counts", **_ONE_SECOND},
    "bwb": {"modality": "spikes", **_ONE_SECOND, "bin_size": 0.02},
    "ibl": {"modality": "spikes", **_ONE_SECOND, "bin_size": 0.02},
    # From 0.25 s before a movement's onset to 0.65 s after it; the last 0.2 s are predicted only.
    "nlb": {
        "modality": "spikes",
        "sequence_length": 0.9,
        "latent_step": 0.05,
        "num_latents_per_step": 8,
        "bin_size": 0.005,
    },
    # One presentation, one value a channel: a single latent step.
    "tvsd": {"modality": "mua", "sequence_length": 0.4, "latent_step": 0.4, "num_latents_per_step": 16},
    # From 0.1 s before to 0.2 s after onset.
    "tvsd_trials": {"modality": "mua", "sequence_length": 0.3, "latent_step": 0.05, "num_latents_per_step": 8},
}


def _network(
    dim: int | None,
    depth: int | None,
    heads: tuple[int | None, int],
    dropout: float | None,
    dim_head: int = 64,
    **more: int,
) -> Preset:
    return {
        "dim": dim, "depth": depth, "dim_head": dim_head, "cross_heads": heads[0], "self_heads": heads[1],
        "ffn_dropout": dropout, "lin_dropout": dropout, **more,
    }  # fmt: skip


MODELS: dict[str, Preset] = {
    # `laptop` or `small`, by the number of training windows; the job says which.
    "auto": _network(128, None, (2, 4), None),
    # For a GPU: 13 M parameters, and some hundred numbers a unit.
    "base": _network(256, 8, (4, 8), 0.2),
    # For GPUs and much data: 100 M parameters, and about 1,100 numbers a unit. Its self-attentions are four times as
    # wide as `dim`, as POYO-1's are.
    "large": _network(512, 12, (8, 32), 0.2),
    # Minutes on a laptop's processor: two layers. The demo's model.
    "laptop": _network(128, 2, (2, 4), 0.1),
    # About 3 M parameters, and some hundred numbers a unit: trains on a laptop.
    "small": _network(128, 6, (2, 4), 0.2),
    # For trying things out and for tests.
    "tiny": _network(32, 1, (2, 2), 0.0, dim_head=16, num_factors=16),
}


def _forecaster(
    depth: int | None, heads: int, feedback: int, hidden: int | None, identity: int | None, encoder: Preset
) -> Preset:
    return {
        "decoder_depth": depth, "decoder_heads": heads, "dim_feedback": feedback, "dim_hidden": hidden,
        "dim_identity": identity, "encoder": encoder,
    }  # fmt: skip


FORECASTERS: dict[str, Preset] = {
    # `laptop` or `small`, by the number of training windows; the job says which.
    "auto": _forecaster(None, 4, 256, None, None, _network(None, None, (None, 4), 0.2, dim_population=512)),
    # About 33 M parameters.
    "base": _forecaster(3, 8, 512, 256, 512, _network(512, 4, (8, 8), 0.2, dim_population=256)),
    # Minutes on a laptop's processor.
    "laptop": _forecaster(1, 4, 256, 64, 128, _network(128, 1, (2, 4), 0.2, dim_population=512)),
    # About 8 M parameters.
    "small": _forecaster(2, 4, 256, 128, 256, _network(256, 4, (4, 4), 0.2, dim_population=512)),
    # For trying things out and for tests.
    "tiny": _forecaster(1, 2, 32, 32, 32, _network(32, 1, (2, 2), 0.0, dim_head=16, dim_population=32)),
}

# Presets of each group, and the part of the config that they set ("" is all of it).
GROUPS: dict[str, tuple[dict[str, Preset], str]] = {
    "dataset": (DATASETS, ""),
    "model": (MODELS, "model"),
    "forecaster": (FORECASTERS, "model"),
    "window": (WINDOWS, "model"),
}
