"""One device and precision for every job: networks compute there, what comes back is float32 on the CPU."""

import pytest
import torch
from pretend_device import DEVICE, pretend_device, to_device
from torch import nn

from neurobridge_tb.configs.presets import MODELS
from neurobridge_tb.configs.settings import RunConfig
from neurobridge_tb.devices import compute, find_device, place
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.models import NeuroBridgeModel


class Doubled(nn.Linear):
    def forward(self, x, *, names):
        assert names == ["a"]
        return {"y": super().forward(x), "names": names}


def test_what_is_computed_on_a_device_comes_back_to_the_cpu_as_float32():
    torch.manual_seed(0)
    network = Doubled(3, 2).eval()
    x = torch.randn(4, 3, dtype=torch.float64)
    expected = nn.functional.linear(x.float(), network.weight, network.bias)
    with pretend_device():
        found = compute(to_device(network), x, names=["a"])  # no float64 there
        assert next(network.parameters()).device == DEVICE
    assert type(found["y"]) is torch.Tensor and found["y"].dtype == torch.float32 and not found["y"].requires_grad
    torch.testing.assert_close(found["y"], expected)


def test_a_precision_bears_on_scoring_too():
    torch.manual_seed(0)
    network, x = nn.Linear(64, 8), torch.randn(5, 64)
    exact = compute(place(network, RunConfig(run_dir="", device="cpu")), x)
    half = compute(place(network, RunConfig(run_dir="", device="cpu", precision="bf16-mixed")), x)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.05
    place(network, RunConfig(run_dir="", device="cpu", precision="tf32"))
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.equal(compute(place(network, RunConfig(run_dir="", device="cpu")), x), exact)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("name", ["cuda:99", "mps:7", "abacus"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(name):
    with pytest.raises(InputError, match=f"here: cpu.*\n.*device={name}"):
        find_device(name)
    assert find_device("cpu") == torch.device("cpu")


def test_an_unknown_precision_is_refused_before_anything_is_trained(binned_root, tmp_path):
    settings = dict(dataset="binned", model="tiny", root=binned_root, run_dir=tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="precision=32-true or tf32"):
        pretrain(**settings, precision="fp8")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("preset", "million"), [("small", 2.8), ("base", 13.3), ("large", 100)])
def test_presets_have_the_sizes_that_they_are_said_to_have(preset, million, monkeypatch):
    shape = {"small": (128, 6), "base": (256, 8), "large": (512, 12)}[preset]
    assert (MODELS[preset]["dim"], MODELS[preset]["depth"]) == shape
    config = compose_config("pretrain", ["dataset.root=x", f"model={preset}", "model.num_factors=64"]).model
    monkeypatch.setattr(
        "neurobridge_tb.models.neurobridge.TimeEmbedding", lambda **sizes: nn.Identity()
    )  # no parameters, and reads values
    with torch.device("meta"):
        model = NeuroBridgeModel(**vars(config))
    parameters = [p for p in model.parameters() if not isinstance(p, nn.parameter.UninitializedParameter)]
    assert sum(p.numel() for p in parameters) / 1e6 == pytest.approx(million, rel=0.02)


def test_with_compile_the_network_that_is_trained_is_compiled(binned_root, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda network, **options: compiled.append((type(network), options)))
    settings = dict(dataset="binned", model="tiny", root=binned_root, max_epochs=1, device="cpu", batch_size=16)
    run = pretrain(**settings, compile=True, run_dir=tmp_path / "run", enable_progress_bar=False)
    assert compiled == [(NeuroBridgeModel, {"dynamic": True})]
    assert (run / "metrics.json").exists()
