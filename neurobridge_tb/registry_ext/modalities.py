"""The registry with NeuroBridge's own modalities: importing this file registers them, beside those of upstream."""

from neurobridge_tb.registry_ext.modality_losses import (
    CrossEntropyLoss,
    InfoNCELoss,
    MSELoss,
    PoissonNLLLoss,
)
from neurobridge_tb.registry_ext.registry import (
    MODALITY_REGISTRY,
    DataType,
    ModalitySpec,
    get_modality_by_id,
    register_modality,
)

__all__ = ["MODALITY_REGISTRY", "DataType", "ModalitySpec", "get_modality_by_id", "register_modality"]

_MODALITIES = {
    # Multi-unit activity envelope, one value a bin and electrode, z-scored by training statistics.
    "mua": dict(
        dim=1,
        type=DataType.CONTINUOUS,
        timestamp_key="mua.timestamps",
        value_key="mua.value",
        loss_fn=MSELoss(),
    ),
    # Spikes counted in bins, one count a bin and unit; models predict log-rates.
    "spike_counts": dict(
        dim=1,
        type=DataType.CONTINUOUS,
        timestamp_key="spike_counts.timestamps",
        value_key="spike_counts.value",
        loss_fn=PoissonNLLLoss(),
    ),
    # Embedding of the image on screen; 768 is CLIP ViT-L/14's width, a model may be built with another.
    "image_embedding": dict(
        dim=768,
        type=DataType.CONTINUOUS,
        timestamp_key="presentations.start",
        value_key="presentations.image_embedding",
        loss_fn=InfoNCELoss(),
    ),
    # Which of TVSD's 22,248 training images was shown (index into its image table).
    "image_id": dict(
        dim=22248,
        type=DataType.MULTINOMIAL,
        timestamp_key="presentations.start",
        value_key="presentations.image_index",
        loss_fn=CrossEntropyLoss(),
    ),
    # Allen Brain Observatory: 118 natural scenes and the blank screen.
    "natural_scenes": dict(
        dim=119,
        type=DataType.MULTINOMIAL,
        timestamp_key="natural_scenes.timestamps",
        value_key="natural_scenes.frame",
        loss_fn=CrossEntropyLoss(),
    ),
    # cm/s
    "running_speed": dict(
        dim=1,
        type=DataType.CONTINUOUS,
        timestamp_key="running.timestamps",
        value_key="running.running_speed",
        loss_fn=MSELoss(),
    ),
    # rad/s
    "wheel_velocity": dict(
        dim=1,
        type=DataType.CONTINUOUS,
        timestamp_key="wheel.timestamps",
        value_key="wheel.velocity",
        loss_fn=MSELoss(),
    ),
    # x and y, in the recording's unit of length a second
    "hand_velocity_2d": dict(
        dim=2,
        type=DataType.CONTINUOUS,
        timestamp_key="hand.timestamps",
        value_key="hand.velocity",
        loss_fn=MSELoss(),
    ),
}

for _name, _spec in _MODALITIES.items():
    if _name not in MODALITY_REGISTRY:  # upstream 0.1 has natural_scenes and running_speed itself
        register_modality(_name, **_spec)
