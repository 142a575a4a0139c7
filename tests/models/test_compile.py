"""torch.compile takes the forward pass and the loss of the MUA path whole, and once for all masks."""

from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.masking import MaskedTokenizer

LEGACY = Path(__file__).parent.parent / "legacy"
SIZES = dict(sequence_length=1.0, latent_step=0.25, num_latents_per_step=2, dim=16, depth=1, dim_head=8)


@pytest.mark.parametrize("factors, graphs", [(0, 1), (4, 2)])
def test_forward_and_loss_are_compiled_once_for_all_masks(factors, graphs):
    """With factors there are two graphs: for masks that are the same in all bins of a batch, and for others."""
    dataset = BinnedRecordings(root=LEGACY)
    torch.manual_seed(0)
    model = NeuroBridgeModel(modality="mua", num_factors=factors, **SIZES)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    windows = [dataset[DatasetIndex("legacy", start, start + 1.0)] for start in (2.0, 3.0, 4.0)]

    def loss(inputs, target):
        batch = {"model_inputs": inputs, "target_values": target}
        return model.eval().masked_loss(model(**inputs), batch)

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")  # the graph as it is: code for it is not this package's
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=counter)
    with torch.fx.experimental._config.patch(use_duck_shape=False):  # sizes that happen to be equal stay apart
        for seed, scheme in enumerate(("random", "temporal", "neuron", "inter_region", "random")):
            batch = collate([MaskedTokenizer(model, {scheme: 1.0}, seed=seed)(window) for window in windows])
            inputs, target = batch["model_inputs"], batch["target_values"]
            model.zero_grad()
            expected = loss(inputs, target)
            expected.backward()
            gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            model.zero_grad()
            actual = compiled(inputs, target)
            actual.backward()
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
            for name, parameter in model.named_parameters():
                if name in gradients:
                    torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)
    assert counter.frame_count == graphs
