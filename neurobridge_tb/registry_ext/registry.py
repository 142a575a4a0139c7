"""The modality registry: what can go into or come out of a model.

On torch_brain 0.1 this *is* ``torch_brain.registry``, so that POYO+ decodes our modalities too. Upstream removed it in
0.2 without a replacement; there, the same names and call signatures live here.
"""

from typing import Any

try:
    from torch_brain.registry import (
        _ID_TO_MODALITY,
        MODALITY_REGISTRY,
        DataType,
        ModalitySpec,
    )
except ImportError:
    from collections.abc import Callable
    from dataclasses import dataclass
    from enum import Enum

    class DataType(Enum):  # type: ignore[no-redef]
        """Kind of a modality's values."""

        CONTINUOUS = 0
        BINARY = 1
        MULTINOMIAL = 2
        MULTILABEL = 3

    @dataclass
    class ModalitySpec:  # type: ignore[no-redef]
        """What is known of a modality.

        Attributes:
            id: Number given at registration, from 1.
            dim: Width of one value (number of classes for ``MULTINOMIAL``).
            type: Kind of the values.
            timestamp_key: Where the times (s) lie in a ``Data`` object, e.g. ``"mua.timestamps"``.
            value_key: Where the values lie, e.g. ``"mua.value"``.
            loss_fn: Called as ``loss_fn(input, target, weights=None)``.
        """

        id: int
        dim: int
        type: DataType
        timestamp_key: str
        value_key: str
        loss_fn: Callable

    MODALITY_REGISTRY: dict[str, ModalitySpec] = {}  # type: ignore[no-redef]
    _ID_TO_MODALITY: dict[int, str] = {}  # type: ignore[no-redef]


def register_modality(name: str, **kwargs: Any) -> int:
    """Register a modality under ``name``.

    Args:
        name: Unique name, e.g. ``"pupil_size"``.
        **kwargs: ``dim``, ``type``, ``timestamp_key``, ``value_key``, ``loss_fn`` of :class:`ModalitySpec`.

    Returns:
        The id given to the modality.

    Raises:
        ValueError: The name is taken; the message says by what.
    """
    if name in MODALITY_REGISTRY:
        raise ValueError(
            f"Modality '{name}' is registered already, as {MODALITY_REGISTRY[name]}. "
            "That entry stands; choose another name for yours."
        )
    modality_id = len(MODALITY_REGISTRY) + 1
    MODALITY_REGISTRY[name] = ModalitySpec(id=modality_id, **kwargs)
    _ID_TO_MODALITY[modality_id] = name
    return modality_id


def get_modality_by_id(modality_id: int) -> str:
    """Name of the modality with this id (as upstream's function returns it).

    Raises:
        KeyError: No modality has this id.
    """
    if modality_id not in _ID_TO_MODALITY:
        raise KeyError(f"No modality has id {modality_id}; registered are {_ID_TO_MODALITY}.")
    return _ID_TO_MODALITY[modality_id]
