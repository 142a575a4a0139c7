"""Which layers of the encoder the second stage of an alignment trains."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neurobridge_tb import ImageAligner, NeuroBridgeModel
from neurobridge_tb.configs.align import AlignConfig
from neurobridge_tb.engine.config import settle
from neurobridge_tb.engine.modules.alignment import AlignmentModule
from neurobridge_tb.engine.optim import Group, adamw_with_warmup


@pytest.mark.parametrize(("free", "layers"), [(0, []), (1, [2]), (2, [1, 2]), (9, [0, 1, 2])])
def test_the_last_layers_are_free_and_none_when_none_is_asked_for(free, layers):
    sizes: dict[str, Any] = dict(modality="mua", sequence_length=0.4, latent_step=0.4, dim=16, depth=3, dim_head=8)
    encoder = NeuroBridgeModel(**sizes, num_latents_per_step=2, cross_heads=1, self_heads=1)
    model = ImageAligner(
        encoder=encoder.config, image_encoder="e", preprocessing_hash="", dim_embedding=4, dim_hidden=8
    )
    dataset: Any = SimpleNamespace(get_unit_ids=lambda: ["u0", "u1"], recording_ids=["r"])
    model.encoder.init_vocabs(dataset)
    config = settle(AlignConfig, None, {"embeddings": "e.h5", "free_layers": free})
    none: Any = None
    module = AlignmentModule(model, config, none, (Path("a"), Path("b")))
    trained = {n for n, p in module.model.encoder.named_parameters() if p.requires_grad}
    assert {int(name.split(".")[1]) for name in trained} == set(layers)
    assert all(name.startswith("proc_layers.") for name in trained)
    readout = [(n, p) for n, p in module.model.named_parameters() if not n.startswith("encoder.")]
    optimizer = adamw_with_warmup(
        Group(readout, 1e-3), Group(module.free_layers.named_parameters(), 1e-3), weight_decay=0.1, total_steps=4
    )["optimizer"]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
