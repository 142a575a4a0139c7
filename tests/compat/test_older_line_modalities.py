"""On torch_brain 0.1 our modalities stand in upstream's own registry, and POYO+ and CaPOYO decode them."""

from dataclasses import replace

import pytest

pytest.importorskip("torch_brain.registry", reason="torch_brain 0.1 is not installed here (`make compat`)")

import torch
import torch_brain.registry as upstream
from torch_brain.models import CalciumPOYOPlus, POYOPlus

import neurobridge_tb
from neurobridge_tb._upstream import collate

OURS = {
    "mua": 1,
    "spike_counts": 1,
    "image_embedding": 768,
    "image_id": 22248,
    "wheel_velocity": 1,
    "hand_velocity_2d": 2,
}


def test_ours_are_entries_of_upstreams_registry():
    assert neurobridge_tb.MODALITY_REGISTRY is upstream.MODALITY_REGISTRY
    for name, dim in OURS.items():
        spec = upstream.MODALITY_REGISTRY[name]
        assert isinstance(spec, upstream.ModalitySpec) and spec.dim == dim
        assert upstream.get_modality_by_id(spec.id) == neurobridge_tb.get_modality_by_id(spec.id) == name


def test_upstreams_own_entries_stand_and_keep_their_ids():
    """Ours come after them, so that a checkpoint's task embeddings keep their meaning."""
    specs = upstream.MODALITY_REGISTRY
    assert [spec.id for spec in specs.values()] == list(range(1, len(specs) + 1))
    own = [name for name in specs if name not in OURS]
    assert own == list(specs)[: len(own)]
    assert {"natural_scenes", "running_speed"} <= set(own)
    assert {type(specs[name].loss_fn).__module__ for name in own} == {"torch_brain.nn.loss"}


def test_registering_goes_on_after_ours():
    last = len(upstream.MODALITY_REGISTRY)
    spec = upstream.MODALITY_REGISTRY["mua"]
    settings = dict(dim=1, type=spec.type, timestamp_key="a.timestamps", value_key="a.b", loss_fn=spec.loss_fn)
    try:
        assert upstream.register_modality("by_upstreams_function", **settings) == last + 1
        assert neurobridge_tb.register_modality("by_ours", **settings) == last + 2
    finally:
        for name in ("by_upstreams_function", "by_ours"):
            upstream.MODALITY_REGISTRY.pop(name, None)


def chosen_specs():
    """Two modalities, numbered anew: upstream has as many task embeddings as it has specs."""
    names = ["running_speed", "hand_velocity_2d"]
    return {name: replace(upstream.MODALITY_REGISTRY[name], id=i) for i, name in enumerate(names, start=1)}


@pytest.mark.parametrize("model_class", [POYOPlus, CalciumPOYOPlus])
@pytest.mark.parametrize("chosen", [False, True])
def test_poyo_plus_decodes_a_modality_of_ours_with_our_loss(model_class, chosen, older_line_windows):
    torch.manual_seed(0)
    sizes = dict(sequence_length=1.0, latent_step=0.25, num_latents_per_step=4, dim=32, dim_head=16, depth=1)
    if chosen:
        model = model_class(readout_specs=chosen_specs(), **sizes)
        assert set(model.readout.projections) == {"running_speed", "hand_velocity_2d"}
    else:
        model = model_class(**sizes)
        assert {name: model.readout.projections[name].out_features for name in OURS} == OURS
    model.unit_emb.initialize_vocab([unit for window in older_line_windows for unit in window.units.id])
    model.session_emb.initialize_vocab([window.session.id for window in older_line_windows])

    batch = collate([model.tokenize(window) for window in older_line_windows])
    target, weights = (batch[key]["hand_velocity_2d"] for key in ("target_values", "target_weights"))
    output = model(**batch["model_inputs"])["hand_velocity_2d"]
    assert output.shape == target.shape == (2 * 20, 2)
    loss = upstream.MODALITY_REGISTRY["hand_velocity_2d"].loss_fn(output, target, weights)
    torch.testing.assert_close(loss, ((output - target) ** 2).mean())
    loss.backward()
    assert model.readout.projections["hand_velocity_2d"].weight.grad.any()
    assert model.unit_emb.weight.grad.any()
