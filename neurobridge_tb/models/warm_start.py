"""Start a NeuroBridgeModel from the weights of CaPOYO, POYO+ or POYO, with the latents that these have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import InfiniteVocabEmbedding
from neurobridge_tb.errors import InputError, first_line
from neurobridge_tb.models.checkpoints import read_checkpoint
from neurobridge_tb.models.neurobridge import NeuroBridgeModel

_SHARED = ("latent_emb", "enc_atn", "enc_ffn", "proc_layers")
# torch_brain's defaults of the settings that weights do not show; a Lightning checkpoint names those that differ.
_DEFAULTS = {"dim_head": 64, "cross_heads": 1, "self_heads": 8, "t_min": 1e-4, "t_max": 2.0627}


@dataclass(frozen=True)
class WarmStart:
    """What a warm start took.

    Attributes:
        source: ``"CaPOYO"``, ``"POYO+"`` or ``"POYO"``.
        taken: Parts whose weights were copied.
        units: Units of the model whose rows were found by their id.
        new_units: Units of the model that the checkpoint does not know; their rows are fresh.
        sessions: Recordings of the model whose rows were found.
        new_sessions: Recordings that the checkpoint does not know.
        left: Parts of the checkpoint that the model has no place for.
        fresh: Parts of the model that the checkpoint says nothing about.
        unchecked: Settings that a bare state dict does not tell, and that must be those of the original for equal
            latents.
    """

    source: str
    taken: list[str]
    units: list[str]
    new_units: list[str]
    sessions: list[str]
    new_sessions: list[str]
    left: list[str]
    fresh: list[str]
    unchecked: list[str]


@torch.no_grad()
def warm_start(model: NeuroBridgeModel, path: str | Path) -> WarmStart:
    """Give ``model`` the weights of a checkpoint, so that windows of known units have the checkpoint's own latents.

    - **CaPOYO** (torch_brain 0.1, ``CalciumPOYOPlus``) reads values on a grid. All its encoder is taken; unit-specific
      value directions start from its shared one. The model must read values as they are (``standardize_inputs=False``).
    - **POYO+** (0.1) and **POYO** (0.2) read spike events. Their unit rows of width D are the two halves of our
      value token (value direction and unit embedding), so ``unit_value_maps`` must be on; ``boundary_tokens`` too.

    What the factors add starts at zero. Decoders predict other things and are not taken.

    Args:
        model: With vocabularies. Rows of units and recordings are found by their ids.
        path: A Lightning checkpoint of upstream's training, or a saved ``state_dict()``. Nothing in it is executed.

    Raises:
        InputError: It is no such checkpoint, or the model has other settings; the message names those to use.
    """
    state, settings = _read(Path(path))
    source = _source(state, path)
    _check_settings(model, source, state, settings, path)

    for part in _SHARED:
        _load(getattr(model, part), state, part)
    taken = [*_SHARED, "unit_emb", "session_emb"]
    dim = model.dim // 2
    if source == "CaPOYO":
        _load(model.input_value_map, state, "input_value_map")
        taken.append("input_value_map")
        known = _copy_rows(model.unit_emb, state, "unit_emb", slice(None))
    else:
        assert model.token_type_emb is not None and model.gain_emb is not None  # checked above
        _load(model.token_type_emb, state, "token_type_emb")
        taken.append("token_type_emb")
        nn.init.zeros_(model.input_value_map.weight)
        nn.init.zeros_(model.input_value_map.bias)
        _copy_rows(model.gain_emb, state, "unit_emb", slice(None, dim))
        known = _copy_rows(model.unit_emb, state, "unit_emb", slice(dim, None))
    sessions = _copy_rows(model.session_emb, state, "session_emb", slice(None))
    for added in (model.population, model.factor_emb):
        if added is not None:
            nn.init.zeros_(added.to_latents)
    parts = sorted({name.split(".")[0] for name in state})
    ours = [name for name, parameter in model.named_children() if list(parameter.parameters())]
    return WarmStart(
        source=source,
        taken=sorted(taken),
        units=known,
        new_units=_others(model.unit_emb, known),
        sessions=sessions,
        new_sessions=_others(model.session_emb, sessions),
        left=[part for part in parts if part not in {*taken, "rotary_emb"}],
        fresh=[part for part in ours if part not in {*taken, "unit_stats"}],
        unchecked=[] if settings is not None else [*_DEFAULTS, "latent_step"],
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """State dict of a checkpoint, and the settings of its model where it has them."""
    try:
        state, settings = read_checkpoint(path)
        return {k: v for k, v in state.items() if isinstance(v, Tensor | dict)}, settings.get("model")
    except Exception as error:  # torch.load raises a different type for each way in which a file can be bad
        raise InputError(
            expected="a Lightning checkpoint or a state dict of CaPOYO, POYO+ or POYO",
            found=f"{path}: {type(error).__name__}: {first_line(error)}",
            fix="Name the .ckpt of upstream's training, or write one with torch.save(model.state_dict(), PATH).",
        ) from error


def _source(state: dict[str, Any], path: str | Path) -> str:
    parts = {name.split(".")[0] for name in state}
    if {*_SHARED, "unit_emb", "token_type_emb"} <= parts:
        if "input_value_map" in parts:
            return "CaPOYO"
        return "POYO+" if "task_emb" in parts else "POYO"
    raise InputError(
        expected="a checkpoint of CaPOYO, POYO+ or POYO",
        found=f"{path} with {', '.join(sorted(parts)[:8]) or 'no tensors'}",
        fix="A model of NeuroBridge's own is continued with `neurobridge adapt`; others cannot be used.",
    )


def _check_settings(
    model: NeuroBridgeModel, source: str, state: dict[str, Any], settings: dict[str, Any] | None, path: str | Path
) -> None:
    """Raise an InputError that names every setting to change."""
    layers = {name.split(".")[1] for name in state if name.startswith("proc_layers.")}
    num_latents, dim = state["latent_emb.weight"].shape
    wanted: dict[str, Any] = {"dim": dim, "depth": len(layers), "num_latents_per_step": num_latents}
    if source == "CaPOYO":
        wanted["standardize_inputs"] = False
    else:
        wanted |= {"modality": "spikes", "unit_value_maps": True, "boundary_tokens": True}
    if settings is not None:
        wanted |= _DEFAULTS | {k: settings[k] for k in (*_DEFAULTS, "latent_step") if k in settings}
    wrong = {k: v for k, v in wanted.items() if model.config[k] != v}
    if source == "CaPOYO" and model.reads_events:
        wrong["modality"] = "mua"
    shapes = {
        name: tuple(state[name].shape)
        for name, parameter in model.named_parameters()
        if name.split(".")[0] in _SHARED and name in state and state[name].shape != parameter.shape
    }
    if wrong or shapes:
        needed = " ".join(
            f"{'+' if k in ('t_min', 't_max') else ''}model.{k}={str(v).lower() if isinstance(v, bool) else v}"
            for k, v in wrong.items()  # the configs leave out the rotary periods
        )
        raise InputError(
            expected=f"a model with the settings of the {source} in {path}",
            found=", ".join(f"{k}={model.config[k]}" for k in wrong)
            or f"{next(iter(shapes))} of another shape than {next(iter(shapes.values()))}",
            fix=f"Use {needed}." if wrong else "Use the heads and head dimension with which it was trained.",
        )


def _load(part: nn.Module, state: dict[str, Any], name: str) -> None:
    part.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})


def _copy_rows(table: InfiniteVocabEmbedding, state: dict[str, Any], name: str, columns: slice) -> list[str]:
    """Copy the rows of the words that both know; returns these words."""
    rows, vocab = state[f"{name}.weight"], {str(word): i for word, i in state[f"{name}.vocab"].items()}
    known = [str(word) for word in table.vocab if word != "NA" and str(word) in vocab]
    if known:
        table.weight[table.tokenizer(known)] = rows[[vocab[word] for word in known]][:, columns].to(table.weight)
    return known


def _others(table: InfiniteVocabEmbedding, known: list[str]) -> list[str]:
    return [str(word) for word in table.vocab if word != "NA" and word not in set(known)]
