"""Models from a folder, from the package and from a hub; uploads with a model card."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from emulated_hub import emulated_hub
from huggingface_hub import constants

from neurobridge_tb.cli.main import main
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.flow import FlowDecoder
from neurobridge_tb.hub import model_folder, read_card, shipped_models
from neurobridge_tb.models import BehaviorDecoder, ImageAligner, NeuroBridgeModel, NeuroHorizonModel
from neurobridge_tb.report.model_card import model_card

SAVED = Path(__file__).parents[1] / "legacy"
CARD = "---\nlicense: mit\n---\n# Model\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with emulated_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder such as `pretrain` leaves, with a score."""
    folder = tmp_path / "private" / "runs" / "pretrain"
    shutil.copytree(SAVED / "neurobridge_spikes", folder / "model")
    command = f"neurobridge pretrain dataset.root={tmp_path}/private/processed run_dir={folder}"
    row = {"scheme": "neuron", "MSE": {"value": 0.5, "low": 0.4, "high": 0.6}}
    result = {"dataset": "mouse_1", "simulated": False, "split": "test", "command": command, "rows": [row]}
    (folder / "metrics.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "config.yaml").write_text(f"command: {command}\nseed: 7\n", encoding="utf-8")
    return folder


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(
        torch.equal(one[k], two[k]) if isinstance(one[k], torch.Tensor) else one[k] == two[k] for k in one
    )


@pytest.mark.parametrize(
    ("kind", "saved"),
    [
        (NeuroBridgeModel, "neurobridge_mua"),
        (ImageAligner, "aligner"),
        (BehaviorDecoder, "behavior_decoder"),
    ],
)
def test_a_model_goes_to_the_hub_and_comes_back(hub, kind, saved):
    model = kind.from_pretrained(SAVED / saved)
    address = model.push_to_hub("lab/monkey", card=CARD)
    assert address.startswith(f"{hub.address}/lab/monkey/commit/")
    assert set(hub.commits["lab/monkey"][-1][1]) == {"config.json", "model.safetensors", "README.md"}
    assert same(kind.from_pretrained("lab/monkey"), model)
    assert read_card(model_folder("lab/monkey"))["license"] == "mit"


def test_a_forecaster_goes_to_the_hub_and_comes_back(hub, binned_root):
    encoder = {"dim": 32, "depth": 1, "dim_head": 16, "dim_population": 16}
    model = NeuroHorizonModel(modality="spike_counts", history=0.5, horizon=0.4, bin_size=0.05, encoder=encoder)
    model.init_vocabs(BinnedRecordings(root=binned_root))
    model.push_to_hub("lab/mouse", card=CARD)
    assert same(NeuroHorizonModel.from_pretrained("lab/mouse"), model)


def test_a_revision_stays_what_it_was(hub):
    files = {name: (SAVED / "aligner" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    first = hub.add("lab/monkey", files)
    hub.add("lab/monkey", {"config.json": b"{}", "harm.py": b"raise SystemExit", "weights.ckpt": b"pickle"})
    ImageAligner.from_pretrained("lab/monkey", revision=first)
    with pytest.raises(InputError, match="config.json"):
        ImageAligner.from_pretrained("lab/monkey")
    assert not any(name in path for path in hub.requested for name in ("harm", "ckpt"))


def test_without_a_network_the_cache_serves(hub):
    NeuroBridgeModel.from_pretrained(SAVED / "neurobridge_mua").push_to_hub("lab/monkey", card=CARD)
    online = NeuroBridgeModel.from_pretrained("lab/monkey")
    hub.shutdown()
    hub.server_close()
    assert same(NeuroBridgeModel.from_pretrained("lab/monkey"), online)
    with pytest.raises(InputError, match="lab/other"):
        NeuroBridgeModel.from_pretrained("lab/other")


@pytest.mark.parametrize("name", ["lab/nothing", "nothing", "a/b/c", "lab/mon key"])
def test_a_model_that_does_not_exist_is_an_error_with_words(hub, name):
    with pytest.raises(InputError, match="organisation/model") as error:
        NeuroBridgeModel.from_pretrained(name)
    assert name in error.value.found


def test_a_refused_upload_is_an_error_with_words(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(InputError, match="may write to"):
        NeuroBridgeModel.from_pretrained(SAVED / "neurobridge_mua").push_to_hub("lab/monkey", card=CARD)
    assert not hub.commits


def test_another_class_is_refused(hub):
    NeuroBridgeModel.from_pretrained(SAVED / "neurobridge_mua").push_to_hub("lab/monkey", card=CARD)
    with pytest.raises(InputError, match="saved ImageAligner"):
        ImageAligner.from_pretrained("lab/monkey")


def test_the_command_makes_the_card_of_a_run_and_uploads_both(hub, run):
    command = ["push", str(run), "lab/mouse", "--licence", "cc-by-4.0", "--use", "Decoding wheel speed."]
    shown = CliRunner().invoke(main, [*command, "--dry-run"], catch_exceptions=False).output
    assert not hub.commits
    CliRunner().invoke(main, command, catch_exceptions=False)
    files = hub.commits["lab/mouse"][-1][1]
    card = files["README.md"].decode()
    assert card.strip() == shown.strip()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "cc-by-4.0" and "real-recordings" in head["tags"]
    for text in ("mouse_1", "0.500 (0.400-0.600)", "Seed 7", "Decoding wheel speed.", 'from_pretrained("lab/mouse")'):
        assert text in card
    assert "neurobridge pretrain dataset.root=private/processed" in card and str(run.parents[2]) not in card
    assert same(NeuroBridgeModel.from_pretrained("lab/mouse"), NeuroBridgeModel.load_pretrained(run / "model"))


def test_a_card_needs_a_run_with_a_model(run, tmp_path):
    with pytest.raises(InputError, match="finished run"):
        model_card(tmp_path / "nothing", name="a/b", licence="mit")
    shutil.rmtree(run / "model")
    with pytest.raises(InputError, match="folder `model`"):
        model_card(run, name="a/b", licence="mit")


def test_what_the_package_carries():
    output = CliRunner().invoke(main, ["models"], catch_exceptions=False).output
    for name, folder in shipped_models().items():
        card = read_card(folder)
        assert f"{name}: {card['summary']}" in output and str(folder) in output and card["license"] in output
    assert model_folder("procedural_64") == shipped_models()["procedural_64"]


def test_the_aligner_of_the_virtual_monkey_is_small_and_says_that_it_is_simulated():
    folder = shipped_models()["virtual_monkey"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6e6
    assert "simulated-recordings" in read_card(folder)["tags"]
    model = ImageAligner.from_pretrained("virtual_monkey")
    assert model.config["layers"] == {"blocks.1@4x4": 384} and len(model.encoder.unit_emb.vocab) == 1025


def test_a_decoder_of_pictures_comes_from_the_hub_too(hub):
    folder = shipped_models()["procedural_64"]
    hub.add("lab/drawn", {file.name: file.read_bytes() for file in folder.iterdir()})
    assert same(FlowDecoder.load("lab/drawn").model, FlowDecoder.load().model)
