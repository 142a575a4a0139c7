"""On torch_brain 0.1 NeuroBridgeModel runs from recording to prediction, and its latents are CaPOYO's own."""

import numpy as np
import pytest

pytest.importorskip("torch_brain.registry", reason="torch_brain 0.1 is not installed here (`make compat`)")

import torch
from torch_brain.models import CalciumPOYOPlus

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import collate, pad8
from neurobridge_tb.data.windows import window_loader
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.masking import Mask, MaskedTokenizer
from neurobridge_tb.nn.rotary import precise

SIZES = dict(
    sequence_length=1.0,
    latent_step=0.25,
    num_latents_per_step=4,
    dim=32,
    depth=2,
    dim_head=16,
    cross_heads=2,
    self_heads=4,
)
SHARED = ["input_value_map", "unit_emb", "latent_emb", "enc_atn", "enc_ffn", "proc_layers"]


@pytest.mark.parametrize("modality", ["mua", "spikes"])
def test_from_recording_to_loss_and_back_from_disk(modality, older_line_root, tmp_path):
    torch.manual_seed(0)
    dataset = BinnedRecordings(root=older_line_root)
    intervals = dataset.get_sampling_intervals("train")
    model = NeuroBridgeModel(modality=modality, num_factors=16, bin_size=0.05, **SIZES)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, intervals)
    transform = MaskedTokenizer(model, {"neuron": 1, "temporal": 1})
    loader = window_loader(
        dataset, transform, intervals, windows="continuous", window_length=1.0, batch_size=8, shuffle=True
    )
    batch = next(iter(loader))
    loss = model.masked_loss(model(**batch["model_inputs"]), batch)
    loss.backward()
    # The encoder's read-outs start at zero: what lies before them gets its gradient from the second step on.
    assert torch.isfinite(loss) and any(p.grad is not None and p.grad.any() for p in model.parameters())

    again = NeuroBridgeModel.load_pretrained(model.save_pretrained(tmp_path / "model")).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**batch["model_inputs"]), model.eval()(**batch["model_inputs"]))


def capoyo_latents(model, inputs):
    """What CaPOYO's decoder is given to read: its latents after the last processing layer."""
    seen = []
    with model.dec_atn.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1])):
        model(**inputs)
    return seen[0]


def in_float64(samples):
    inputs = collate(samples)["model_inputs"]
    inputs = {name: precise(x) if name.endswith("timestamps") else x for name, x in inputs.items()}
    return {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_latents_equal_those_of_capoyo_with_the_same_weights(masked, older_line_root, older_line_windows):
    torch.manual_seed(0)
    dataset = BinnedRecordings(root=older_line_root)
    capoyo = CalciumPOYOPlus(**SIZES)
    capoyo.unit_emb.initialize_vocab(dataset.get_unit_ids()[::-1])  # not in our order
    capoyo.session_emb.initialize_vocab(dataset.recording_ids)
    capoyo.double().eval()
    for parameter in capoyo.parameters():  # biases and gains that matter
        parameter.add_(0.3 * torch.randn_like(parameter))
    ours = NeuroBridgeModel(modality="mua", unit_value_maps=False, num_factors=0, **SIZES)
    ours.init_vocabs(dataset)
    ours.double().eval()
    for part in SHARED:
        getattr(ours, part).load_state_dict(getattr(capoyo, part).state_dict())

    rng = np.random.default_rng(0)
    our_samples, capoyo_samples = [], []
    for window in older_line_windows:
        keep = rng.random(window.mua.value.shape) < (0.6 if masked else 1.0)
        our_samples.append(ours.tokenize_with_targets(window, Mask("random", keep, ~keep)))
        capoyo_samples.append(capoyo.tokenize(window))
        capoyo_samples[-1]["model_inputs"]["input_mask"] = pad8(torch.from_numpy(keep.ravel()))
    latents = ours.encode(**in_float64(our_samples))
    expected = capoyo_latents(capoyo, in_float64(capoyo_samples))
    assert latents.dtype == torch.float64 and latents.shape == (2, 4 * 4, 32)
    torch.testing.assert_close(latents, expected, rtol=1e-8, atol=1e-8)
