"""Arguments of the models, as their constructors take them."""

from dataclasses import dataclass
from typing import Any

from neurobridge_tb.configs.settings import REQUIRED, setting


@dataclass
class NetworkConfig:
    """Size and regularisation of a NeuroBridgeModel."""

    dim: int | None = setting(128, "Width of tokens and latents; null: as depth.")
    depth: int | None = setting(6, "Processing layers; null: by the number of training windows.")
    dim_head: int = setting(64, "Width of an attention head.")
    cross_heads: int | None = setting(2, "Heads of cross-attention; null: as depth.")
    self_heads: int = setting(4, "Heads of self-attention.")
    num_factors: int = setting(0, "Most factors of the factor model; 0: none.")
    dim_population: int = setting(256, "Width of the population embedding; 0: none.")
    unit_value_maps: bool = setting(True, "Each unit has its own value direction; false: CaPOYO's, shared by all.")
    standardize_inputs: bool = setting(True, "false: grid values enter as they are, as in CaPOYO.")
    boundary_tokens: bool = setting(False, "Spike events with two more tokens a unit, as in POYO.")
    ffn_dropout: float | None = setting(0.2, "Dropout in feed-forward networks; null: as depth.")
    lin_dropout: float | None = setting(0.2, "Dropout after each processing layer; null: as depth.")
    atn_dropout: float = setting(0.0, "Dropout in attention.")
    emb_init_scale: float = setting(0.02, "Standard deviation of embeddings at initialisation.")
    t_min: float = setting(1e-4, "Shortest rotary period (s).")
    t_max: float = setting(2.0627, "Longest rotary period (s).")


@dataclass
class ModelConfig(NetworkConfig):
    """A NeuroBridgeModel."""

    modality: Any = setting(REQUIRED, "What is read: mua, spike_counts (bins) or spikes (events); or a list.")
    sequence_length: float = setting(REQUIRED, "Length of a window (s).")
    latent_step: float = setting(REQUIRED, "Time between latent steps (s).")
    num_latents_per_step: int = setting(8, "Latents at each step.")
    num_factors: int = setting(256, "Most factors of the factor model; its fit keeps those that help; 0: none.")
    dim_population: int = setting(0, "Width of a population embedding, as earlier models have; 0: none.")
    bin_size: float = setting(0.02, "Bin width (s) of the counts predicted for spikes.")


@dataclass
class ForecasterConfig:
    """A NeuroHorizonModel."""

    modality: str = setting("spike_counts", "spike_counts (bins as they were recorded) or spikes (events).")
    history: float = setting(0.5, "Past that is read (s).")
    horizon: float = setting(1.0, "Future to forecast (s); shorter ones are rolled out from the same model.")
    bin_size: float = setting(0.02, "Bin width (s); for spike_counts the recording's own.")
    latent_step: float = setting(0.125, "Time between latent steps (s).")
    num_latents_per_step: int = setting(8, "Latents at each step.")
    decoder_depth: int | None = setting(2, "Layers of the decoder; null: by the number of training windows.")
    decoder_heads: int = setting(4, "Attention heads of the decoder.")
    dim_feedback: int = setting(256, "Width of the population vector that is fed back.")
    dim_hidden: int | None = setting(128, "Hidden width of the head; null: as decoder_depth.")
    unit_identity: str = setting(
        "embedding", "embedding: trained units; features: any unit, from its reference features."
    )
    dim_identity: int | None = setting(
        256, "Width of the embeddings made from reference features; null: as decoder_depth."
    )
    encoder: NetworkConfig = setting(NetworkConfig(), "The encoder.")
