"""Models saved before this version load, and their outputs are equal."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from neurobridge_tb import ImageAligner, NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings
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


FORECASTERS = ["spikes_embedding", "spikes_features", "spike_counts_embedding", "spike_counts_features"]


@pytest.mark.xfail(reason="the forecaster was rebuilt around a filter of rates; files of before do not fit it")
@pytest.mark.parametrize("name", [*FORECASTERS, "spikes_features.ckpt"])
@torch.no_grad()
def test_forecast(name, windows, expected):
    model = NeuroHorizonModel.load_pretrained(FOLDER / f"neurohorizon_{name}").eval()
    batch = collate([model.tokenize_with_targets(w) for w in windows])
    forced = model(future=batch["target_values"], future_mask=batch["target_mask"], **batch["model_inputs"])
    name = f"neurohorizon_{name.removesuffix('.ckpt')}"
    torch.testing.assert_close(forced, expected[f"{name}.forced"], **ROUNDED)
    torch.testing.assert_close(model.generate(**batch["model_inputs"]), expected[f"{name}.rolled"], **ROUNDED)
