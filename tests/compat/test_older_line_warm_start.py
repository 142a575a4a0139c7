"""On torch_brain 0.1 a checkpoint of the real CaPOYO or POYO+ starts a NeuroBridgeModel with that model's latents."""

from dataclasses import replace

import pytest

pytest.importorskip("torch_brain.registry", reason="torch_brain 0.1 is not installed here (`make compat`)")

import torch
import torch_brain.registry as upstream
from torch_brain.models import CalciumPOYOPlus, POYOPlus

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import collate
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.models.warm_start import warm_start

SIZES = dict(latent_step=0.25, num_latents_per_step=4, dim=32, depth=2, dim_head=16, cross_heads=2, self_heads=4)
OURS = {
    "CaPOYO": dict(modality="mua", standardize_inputs=False),
    "POYO+": dict(modality="spikes", boundary_tokens=True),
}


@torch.no_grad()
@pytest.mark.parametrize("source, model_class", [("CaPOYO", CalciumPOYOPlus), ("POYO+", POYOPlus)])
@pytest.mark.parametrize("lightning", [True, False])
def test_latents_equal_those_of_the_checkpoint(
    source, model_class, lightning, older_line_root, older_line_windows, tmp_path
):
    torch.manual_seed(0)
    dataset = BinnedRecordings(root=older_line_root)
    specs = {"hand_velocity_2d": replace(upstream.MODALITY_REGISTRY["hand_velocity_2d"], id=1)}
    theirs = model_class(sequence_length=1.0, readout_specs=specs, **SIZES).eval()
    theirs.unit_emb.initialize_vocab(["elsewhere", *dataset.get_unit_ids()[::-1]])  # not in our order
    theirs.session_emb.initialize_vocab(dataset.recording_ids[::-1])
    for parameter in theirs.parameters():  # biases and gains that matter
        parameter.add_(0.1 * torch.randn_like(parameter))
    state, path = theirs.state_dict(), tmp_path / "theirs.ckpt"
    checkpoint = {"state_dict": {f"model.{k}": v for k, v in state.items()}, "hyper_parameters": {"model": SIZES}}
    torch.save(checkpoint if lightning else state, path)

    seen = []
    with theirs.dec_atn.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1])):
        theirs(**collate([theirs.tokenize(window) for window in older_line_windows])["model_inputs"])
    ours = NeuroBridgeModel(sequence_length=1.0, **SIZES, **OURS[source])
    ours.init_vocabs(dataset)
    ours.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    report = warm_start(ours.eval(), path)
    inputs = collate([ours.tokenize(window) for window in older_line_windows])
    if source == "POYO+":  # times of spikes are float64 in upstream's batches, float32 in ours
        inputs["input_timestamps"] = inputs["input_timestamps"].double()
        for row, window in zip(inputs["input_timestamps"], older_line_windows, strict=True):
            spikes, first = torch.from_numpy(window.spikes.timestamps), 2 * len(window.units)
            row[first : first + len(spikes)] = spikes
    latents = ours.encode(**inputs)
    torch.testing.assert_close(latents, seen[0], rtol=1e-5, atol=1e-5)
    assert (report.source, len(report.units), report.new_units) == (source, 16, [])
    assert bool(report.unchecked) == (not lightning)
