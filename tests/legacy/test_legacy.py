"""Models saved before this version load, and their outputs are equal."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neurobridge_tb import ImageAligner, NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking import Mask
from neurobridge_tb.models import BehaviorDecoder
from neurobridge_tb.models.neurohorizon import NeuroHorizonModel

FOLDER = Path(__file__).parent
CLOSE = dict(rtol=1e-4, atol=1e-5)
ROUNDED = dict(rtol=1e-3, atol=1e-3)  # times of spikes, and of a forecast's bins, were in float64 then


@pytest.fixture(scope="module")
def windows():
    dataset = BinnedRecordings(root=FOLDER)
    return [dataset[DatasetIndex("legacy", start, start + 1.0)] for start in (1.0, 2.0)]


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "outputs.safetensors")


@pytest.mark.parametrize("modality", ["mua", "spike_counts", "spikes"])
@pytest.mark.parametrize("suffix", ["", ".ckpt"])
@torch.no_grad()
def test_masked_prediction(modality, suffix, windows, expected):
    model = NeuroBridgeModel.load_pretrained(FOLDER / f"neurobridge_{modality}{suffix}").eval()
    target = np.zeros((20, 6), dtype=bool)
    target[:, :2] = target[15:] = True
    batch = collate([model.tokenize_with_targets(w, Mask("neuron", ~target, target)) for w in windows])
    output = model(**batch["model_inputs"])
    loss = model.masked_loss(output, batch)
    output = output.masked_fill(~batch["model_inputs"]["output_mask"], 0.0)
    close = ROUNDED if modality == "spikes" else CLOSE
    torch.testing.assert_close(output, expected[f"neurobridge_{modality}"], **close)
    torch.testing.assert_close(loss, expected[f"neurobridge_{modality}.loss"], **close)


@pytest.mark.parametrize("suffix", ["", ".ckpt"])
@torch.no_grad()
def test_alignment(suffix, windows, expected):
    aligner = ImageAligner.load_pretrained(FOLDER / f"aligner{suffix}").eval()
    contrastive, regression = aligner(**collate([aligner.encoder.tokenize(w) for w in windows]))
    torch.testing.assert_close(contrastive, expected["aligner.contrastive"], **CLOSE)
    torch.testing.assert_close(regression, expected["aligner.regression"], **CLOSE)


@pytest.mark.parametrize("suffix", ["", ".ckpt"])
@torch.no_grad()
def test_behavior(suffix, windows, expected):
    decoder = BehaviorDecoder.load_pretrained(FOLDER / f"behavior_decoder{suffix}").eval()
    output = decoder(**collate([decoder.tokenize(w) for w in windows]))
    torch.testing.assert_close(output, expected["behavior_decoder"], **CLOSE)


@pytest.mark.parametrize("name", ["neurohorizon", "neurohorizon.ckpt"])
def test_forecasters_of_before_the_rate_filter_are_refused_with_what_to_do(name):
    with pytest.raises(InputError, match=r"(?s)neurohorizon.*from before these wrote.*Train it again"):
        NeuroHorizonModel.load_pretrained(FOLDER / name)


def test_decoders_of_before_they_read_factors_predict_what_they_did(tmp_path):
    torch.manual_seed(0)
    encoder = dict(modality="spike_counts", sequence_length=0.5, latent_step=0.25, dim=16, depth=1, num_factors=4)
    decoder = BehaviorDecoder(encoder=encoder, dim_out=2)
    decoder.init_vocabs(SimpleNamespace(get_unit_ids=lambda: ["unit"], recording_ids=["recording"]))
    with torch.no_grad():
        decoder.readout.weight.unflatten(1, (5, -1))[..., 16:].zero_()  # the factors'
    folder = decoder.save_pretrained(tmp_path / "decoder")
    weights = load_file(folder / "model.safetensors")
    weights["readout.weight"] = weights["readout.weight"].unflatten(1, (5, -1))[..., :16].flatten(1).contiguous()
    save_file(weights, folder / "model.safetensors")
    torch.testing.assert_close(BehaviorDecoder.load_pretrained(folder).readout.weight, decoder.readout.weight)
