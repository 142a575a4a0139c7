"""Feature networks: used where their weights lie, named with what they need where not."""

import numpy as np
import pytest
import torch

from neurobridge_tb.alignment.encoders import load_image_encoder
from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.feature_networks import feature_networks
from neurobridge_tb.metrics.image_metrics import SeenImages
from neurobridge_tb.vision_imports import prepare_torchvision

STANDARD = [
    "two-way AlexNet 2",
    "two-way AlexNet 5",
    "two-way Inception",
    "two-way CLIP",
    "distance EffNet-B1",
    "distance SwAV",
    "distance LPIPS",
]


def columns(networks):
    return [column for network in networks for column in network.columns]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def test_without_weights_every_standard_column_says_what_it_needs(tmp_path):
    networks = feature_networks(weights_dir=tmp_path)
    assert columns(networks) == STANDARD
    for network in networks:
        assert network.extract is None
        assert network.needs.startswith("needs the file") and str(tmp_path) in network.needs


def test_loaded_encoder_adds_its_own_columns(images, tmp_path):
    encoder = load_image_encoder("timm:tf_efficientnet_lite0", image_size=64)
    network = feature_networks(encoder=encoder, weights_dir=tmp_path)[0]
    features = network.extract(images)
    assert tuple(features) == network.columns
    assert network.columns == ("two-way tf_efficientnet_lite0 blocks.2", "two-way tf_efficientnet_lite0 blocks.6")
    early, late = features.values()
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = encoder.features(pictures, ["blocks.6"], grid=1)["blocks.6"]
    np.testing.assert_allclose(late, expected, atol=1e-5)
    assert early.shape == (2, 40 * 8 * 8) and late.shape == (2, 320)


def test_local_weights_are_used(images, tmp_path):
    prepare_torchvision()
    from torchvision import models

    torch.manual_seed(0)
    state = models.resnet50().state_dict()
    swav = {f"module.{name}": value for name, value in state.items() if not name.startswith("fc.")}
    torch.save(swav | {"module.prototypes.weight": torch.zeros(3, 4)}, tmp_path / "swav_800ep_pretrain.pth.tar")
    network = next(n for n in feature_networks(weights_dir=tmp_path) if n.columns == ("distance SwAV",))
    features = network.extract(images)["distance SwAV"]
    assert features.shape == (2, 2048) and np.isfinite(features).all() and np.ptp(features) > 0


def test_lpips_is_that_of_torchmetrics(tmp_path):
    """The same random AlexNet in both: ours is a squared distance of features, theirs the published sum."""
    prepare_torchvision()
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision import models

    torch.manual_seed(0)
    alexnet = models.alexnet()
    torch.save(alexnet.state_dict(), tmp_path / "alexnet-owt-7be5be79.pth")
    network = next(n for n in feature_networks(weights_dir=tmp_path) if n.columns == ("distance LPIPS",))
    rng = np.random.default_rng(0)
    seen, made = (rng.integers(0, 256, (2, 128, 128, 3), dtype=np.uint8) for _ in range(2))
    true, drawn = (network.extract(images)["distance LPIPS"] for images in (seen, made))
    reference = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
    for name, parameter in reference.net.named_parameters():
        parameter.data.copy_(alexnet.features.state_dict()[name.partition(".")[2]])
    pixels = [torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1 for images in (seen, made)]
    with torch.no_grad():
        expected = reference(*pixels).flatten().numpy()
    np.testing.assert_allclose(((true - drawn) ** 2).sum(1), expected, rtol=1e-3)
    metrics, _ = SeenImages(seen, [network]).compare(made)
    assert metrics["distance LPIPS"] == pytest.approx(float(expected.mean()), rel=1e-3)


@pytest.mark.parametrize("content", [{"some": torch.zeros(1)}, "text"])
def test_wrong_weights_are_refused_by_name(images, tmp_path, content):
    path = tmp_path / "efficientnet_b1-c27df63c.pth"
    path.write_text(content) if isinstance(content, str) else torch.save(content, path)
    network = next(n for n in feature_networks(weights_dir=tmp_path) if n.columns == ("distance EffNet-B1",))
    with pytest.raises(InputError, match="efficientnet_b1-c27df63c"):
        network.extract(images)
