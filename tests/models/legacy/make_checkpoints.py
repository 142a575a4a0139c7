"""Made the files of this folder, once, with upstream's own classes of torch_brain 0.1.2 (see ``make compat``).

python tests/models/legacy/make_checkpoints.py

``legacy.h5`` is the recording, ``capoyo.ckpt`` and ``poyo_plus.ckpt`` are laid out as upstream's Lightning training
writes them, ``latents.npz`` holds the latents of two windows of one second, at 1 s and at 2 s.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from temporaldata import IrregularTimeSeries
from torch_brain.models import CalciumPOYOPlus, POYOPlus

from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.registry_ext import MODALITY_REGISTRY

FOLDER = Path(__file__).parent
SIZES = dict(latent_step=0.25, num_latents_per_step=2, dim=16, depth=1, dim_head=8, cross_heads=2, self_heads=2)

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    times = np.arange(60) * 0.05
    data = build_recording(
        brainset_id="test",
        session_id="legacy",
        subject_id="subject",
        units={"id": [f"unit{i}" for i in range(6)]},
        mua=(rng.normal(1, 2, (60, 6)), 0.05),
        spikes=(np.sort(rng.uniform(0, 3, 120)), rng.integers(0, 6, 120)),
        behavior={"hand_velocity": (times, np.stack([np.sin(times), np.cos(times)], axis=1))},
        splits={"train": ([0.0], [3.0])},
        simulated=True,
    )
    save_recording(data, FOLDER / "legacy.h5")
    dataset = BinnedRecordings(root=FOLDER)
    windows = [dataset[DatasetIndex("legacy", start, start + 1.0)] for start in (1.0, 2.0)]
    for window in windows:
        window.calcium_traces = IrregularTimeSeries(
            timestamps=window.mua.timestamps, df_over_f=window.mua.value, domain=window.domain
        )
        window.config = {"multitask_readout": [{"readout_id": "hand_velocity_2d"}]}

    latents = {}
    for name, model_class in (("capoyo", CalciumPOYOPlus), ("poyo_plus", POYOPlus)):
        torch.manual_seed(0)
        spec = replace(MODALITY_REGISTRY["hand_velocity_2d"], id=1)
        model = model_class(sequence_length=1.0, readout_specs={"hand_velocity_2d": spec}, **SIZES).eval()
        model.unit_emb.initialize_vocab([*window.units.id[::-1], "elsewhere"])
        model.session_emb.initialize_vocab([window.session.id])
        seen = []
        with torch.no_grad():
            for parameter in model.parameters():  # biases and gains that matter
                parameter.add_(0.1 * torch.randn_like(parameter))
            with model.dec_atn.register_forward_pre_hook(lambda _, arguments, seen=seen: seen.append(arguments[1])):
                model(**collate([model.tokenize(window) for window in windows])["model_inputs"])
        latents[name] = seen[0].numpy()
        settings = {"_target_": f"torch_brain.models.{model_class.__name__}", **SIZES}
        checkpoint = {
            "state_dict": {
                f"model.{key}": value.clone() if isinstance(value, torch.Tensor) else value
                for key, value in model.state_dict().items()
            },
            "hyper_parameters": {"model": settings, "seed": 0},
            "pytorch-lightning_version": "2.6.6",
        }
        torch.save(checkpoint, FOLDER / f"{name}.ckpt")
    np.savez(FOLDER / "latents.npz", **latents)
