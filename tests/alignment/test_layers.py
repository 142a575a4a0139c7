"""Layers by name, by share of the depth and on places."""

import numpy as np
import pytest
import torch
from torch import nn

from neurobridge_tb.alignment.encoders import ImageEncoder, load_image_encoder
from neurobridge_tb.alignment.layers import blocks, pool, resolve_layers
from neurobridge_tb.errors import InputError
from neurobridge_tb.vision_imports import prepare_torchvision


class Stage(nn.Module):
    def __init__(self, scale: float):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.conv.weight.data = scale * torch.eye(3)[:, :, None, None]

    def forward(self, x):
        return self.conv(x)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.blocks = nn.Sequential(*[Stage(2.0) for _ in range(4)])

    def forward(self, x):
        return self.blocks(x).mean((2, 3)) * 10


@pytest.fixture
def encoder():
    return ImageEncoder(Network(), name="timm:net", image_size=6, mean=(0, 0, 0), std=(1, 1, 1), batch_size=2)


def test_shares_of_the_depth_are_blocks():
    network = Network()
    assert blocks(network) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]
    found = resolve_layers(network, ["0.25", "0.5@2x2", "1.0", "final", "stem"], name="net")
    assert [str(layer) for layer in found] == ["blocks.0", "blocks.1@2x2", "blocks.3", "final", "stem"]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet", "tf_efficientnet_lite2"])
def test_networks_of_many_kinds_have_blocks_on_places(name):
    prepare_torchvision()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0)
    encoder = ImageEncoder(network, name=f"timm:{name}", image_size=160, mean=(0, 0, 0), std=(1, 1, 1))
    (half,) = encoder.layers(["0.5@2x2"])
    assert half.module in blocks(network)
    images = torch.randint(0, 255, (2, 3, 160, 160), dtype=torch.uint8)
    found = encoder.targets(images, encoder.layers(["0.5@2x2", "0.5", "final"]))
    on_places, pooled, final = found.values()
    assert on_places.shape == (2, 4 * pooled.shape[1]) and final.shape == (2, encoder.dim)


def test_targets_are_the_layers_own_outputs_on_places(encoder):
    images = torch.randint(0, 255, (5, 3, 6, 6), dtype=torch.uint8)
    found = encoder.targets(images, encoder.layers(["blocks.0@2x2", "blocks.1", "final"]))
    assert list(found) == ["blocks.0@2x2", "blocks.1", "final"]
    values = images.float() / 255
    quarters = values.unflatten(2, (2, 3)).unflatten(4, (2, 3)).mean((3, 5))
    torch.testing.assert_close(found["blocks.0@2x2"], 2 * quarters.flatten(1))
    torch.testing.assert_close(found["blocks.1"], 4 * values.mean((2, 3)))
    torch.testing.assert_close(found["final"], 160 * values.mean((2, 3)))
    torch.testing.assert_close(found["final"], encoder.encode(images))


def test_class_and_register_tokens_are_left_out_of_places():
    tokens = torch.cat([torch.full((1, 2, 3), 99.0), torch.arange(16.0)[None, :, None].expand(1, 16, 3)], 1)
    assert pool(tokens, 2, "block")[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_channels_last_maps_are_turned():
    maps = torch.randn(2, 7, 4, 4)
    torch.testing.assert_close(pool(maps.permute(0, 2, 3, 1), 2, "stage"), pool(maps, 2, "stage"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("block.3", r"nearest names are blocks\.3"),
        ("blocks.1@2x3", "as many rows as columns"),
        ("final@2x2", "no places"),
        ("1.5", "share of the network's depth"),
        ("", "layer"),
    ],
)
def test_layers_that_cannot_be(encoder, spec, message):
    with pytest.raises(InputError, match=message):
        encoder.layers([spec])


def test_the_same_layer_twice_and_too_many_places_are_refused(encoder):
    with pytest.raises(InputError, match="each once"):
        encoder.layers(["0.5", "blocks.1"])
    with pytest.raises(InputError, match="fewer places"):
        encoder.targets(torch.zeros(1, 3, 6, 6, dtype=torch.uint8), encoder.layers(["blocks.0@7x7"]))


@pytest.mark.parametrize("k", [1, 2])
def test_the_packaged_networks_see(k):
    """Weights zipped in a wrong order would load, and tell two pictures of one thing no better than two things."""
    from neurobridge_tb.simulation.procedural import draw_image

    encoder = load_image_encoder(f"timm:tf_efficientnet_lite{k}", image_size=96)
    names = ["red_plain_balloon", "blue_plain_mushroom"]
    drawn = [draw_image(name, np.random.default_rng(i), 96) for name in names for i in range(3)]
    codes = encoder.encode(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2))
    codes = torch.nn.functional.normalize(codes - codes.mean(0), dim=1)
    alike = codes @ codes.T
    assert alike[:3, 3:].max() < min(alike[:3, :3].min(), alike[3:, 3:].min())


def test_tags_of_timm_models_are_accepted_and_checked(tmp_path):
    prepare_torchvision()
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "w.pth")
    encoder = load_image_encoder(f"timm:test_vit.r160_in1k@{tmp_path / 'w.pth'}")
    assert encoder.image_size == timm.get_pretrained_cfg("test_vit.r160_in1k").input_size[1]
    with pytest.raises(InputError, match="r160_in1k"):
        load_image_encoder(f"timm:test_vit.no_such_tag@{tmp_path / 'w.pth'}")


def test_open_clip_weights_of_another_activation_are_refused():
    pytest.importorskip("open_clip")
    with pytest.raises(InputError, match="ViT-L-14-quickgelu/openai"):
        load_image_encoder("open_clip:ViT-L-14/openai")
