"""Which numbers a setting may have, by its name: one name means the same wherever it stands.

What depends on the data (labels, folds, shares of the pairs) is checked where they are read.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from neurobridge_tb.errors import InputError

SHARES = set("dropout ffn_dropout lin_dropout atn_dropout unit_dropout ema first last strength".split())
FROM_1 = set(
    "batch_size dim dim_head dim_hidden dim_feedback dim_identity cross_heads self_heads decoder_heads num_queries "
    "num_latents_per_step replay_batch resamples stride steps image_size num_samples "
    "max_targets held_out num_nodes accumulate_grad_batches log_every_n_steps".split()
)
FROM_0 = set(
    "loader.batch_size num_workers recording_exponent depth decoder_depth num_factors dim_population epochs "
    "free_layers lr factor_lr body_lr pretrained_lr weight_decay replay_weight l2sp_weight regression_weight "
    "image_weight permutations noise rate_jitter time_jitter steps_around gradient_clip_val guidance scale "
    "noise_level".split()
)
ABOVE_0 = set("t_min t_max emb_init_scale reference_seconds limit_train_batches limit_val_batches".split())
WITHIN_A_DAY = set("sequence_length latent_step bin_size history horizon glm_horizons".split())  # make windows
_DAY = 86_400


def check_ranges(config: Any, prefix: str = "") -> None:
    """Refuse numbers that no job can work with, before it starts.

    Raises:
        InputError: A number out of its range; it is named.
    """
    for name, value in _values(config, prefix):
        for one in value if isinstance(value, list) else [value]:
            check_range(name, one)


def check_range(name: str, value: Any) -> None:
    """Refuse one number; what is none passes.

    Raises:
        InputError: It is out of the range of settings of this name.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    last, two = name.rpartition(".")[2], ".".join(name.split(".")[-2:])
    if two in FROM_0 or last in FROM_0:
        fits, expected = value >= 0, "0 or more"
    elif last in FROM_1:
        fits, expected = value >= 1, "1 or more"
    elif last in SHARES:
        fits, expected = 0 <= value <= 1, "from 0 to 1"
    elif last in WITHIN_A_DAY:
        fits, expected = 0 < value <= _DAY, f"above 0 and at most {_DAY}"
    else:
        fits, expected = last not in ABOVE_0 or value > 0, "above 0"
    if not fits:
        raise InputError(expected=f"{name} {expected}", found=f"{value:g}", fix=f"Correct {name}.")


def _values(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _values(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value
