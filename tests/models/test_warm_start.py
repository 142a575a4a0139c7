"""Warm starts: latents are those of the model whose weights were taken, and what was not taken is said."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_brain.models import POYO

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking import Mask
from neurobridge_tb.models.warm_start import warm_start

LEGACY = Path(__file__).parent / "legacy"
SIZES = dict(latent_step=0.25, num_latents_per_step=2, dim=16, depth=1, dim_head=8, cross_heads=2, self_heads=2)
CAPOYO = SIZES | {"modality": "mua", "standardize_inputs": False}
POYO_LIKE = SIZES | {"modality": "spikes", "boundary_tokens": True}


@pytest.fixture(scope="module")
def dataset():
    return BinnedRecordings(root=LEGACY)


def windows(dataset):
    return [dataset[DatasetIndex("legacy", start, start + 1.0)] for start in (1.0, 2.0)]


def make(dataset, settings):
    torch.manual_seed(1)
    model = NeuroBridgeModel(sequence_length=1.0, **settings)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    return model.eval()


@torch.no_grad()
def latents(model, dataset):
    """With the times of spikes in float64, as upstream's batches have them; ours have float32."""
    inputs = collate([model.tokenize(window) for window in windows(dataset)])
    if model.reads_events:
        times = inputs["input_timestamps"].double()
        for row, window in zip(times, windows(dataset), strict=True):
            spikes = window.spikes.timestamps
            first = 2 * len(window.units) * model.boundary_tokens
            torch.testing.assert_close(row[first : first + len(spikes)], torch.from_numpy(spikes), rtol=0, atol=6e-8)
            row[first : first + len(spikes)] = torch.from_numpy(spikes)
        inputs["input_timestamps"] = times
    return model.encode(**inputs)


@pytest.mark.parametrize(
    "name, settings, source",
    [("capoyo", CAPOYO, "CaPOYO"), ("capoyo", CAPOYO | {"unit_value_maps": False, "num_factors": 0}, "CaPOYO")]
    + [("poyo_plus", POYO_LIKE, "POYO+")],
)
def test_latents_are_those_that_upstreams_own_class_gave_on_the_older_line(dataset, name, settings, source):
    model = make(dataset, settings)
    expected = torch.from_numpy(np.load(LEGACY / "latents.npz")[name])
    assert not torch.allclose(latents(model, dataset), expected, atol=0.01)
    report = warm_start(model, LEGACY / f"{name}.ckpt")
    torch.testing.assert_close(latents(model, dataset), expected, rtol=1e-5, atol=1e-5)
    assert report.source == source and report.unchecked == []
    assert report.units == sorted(f"unit{i}" for i in range(6)) and report.sessions == ["legacy"]
    assert {"dec_atn", "dec_ffn", "readout", "task_emb"} <= set(report.left)
    assert "decoder" in report.fresh and "enc_atn" in report.taken


def test_latents_are_those_of_poyo_of_this_line(dataset, tmp_path):
    torch.manual_seed(0)
    poyo = POYO(sequence_length=1.0, dim_out=2, **SIZES).eval()
    poyo.init_vocabs(dataset)
    seen = []
    with torch.no_grad():
        for parameter in poyo.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        with poyo.dec_atn.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1])):
            samples = [poyo.tokenize(window) for window in windows(dataset)]
            poyo(**collate([sample | {"output_timestamps": torch.zeros(1)} for sample in samples]))
    torch.save(poyo.state_dict(), tmp_path / "poyo.pt")
    model = make(dataset, POYO_LIKE)
    report = warm_start(model, tmp_path / "poyo.pt")
    torch.testing.assert_close(latents(model, dataset), seen[0], rtol=1e-5, atol=1e-5)
    assert report.source == "POYO"
    assert "cross_heads" in report.unchecked  # a state dict does not tell


def test_a_model_trains_on_from_a_warm_start(dataset):
    model = make(dataset, CAPOYO)
    warm_start(model, LEGACY / "capoyo.ckpt")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = collate([model.tokenize_with_targets(window) for window in windows(dataset)])
    losses = []
    for _ in range(40):
        losses.append(model.masked_loss(model(**batch["model_inputs"]), batch))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert model.factor_emb.to_latents.abs().max() > 0 and model.gain_emb.weight.abs().max() > 0


def test_units_are_found_by_their_id_and_new_ones_keep_fresh_rows(tmp_path):
    rng = np.random.default_rng(0)
    data = build_recording(
        brainset_id="test",
        session_id="tomorrow",
        subject_id="subject",
        units={"id": ["unit3", "unseen", "unit0"]},
        mua=(rng.normal(size=(40, 3)), 0.05),
        splits={"train": ([0.0], [2.0])},
    )
    save_recording(data, tmp_path / "tomorrow.h5")
    model = make(BinnedRecordings(root=tmp_path), CAPOYO)
    fresh = model.unit_emb.weight[model.unit_emb.tokenizer("unseen")].clone()
    report = warm_start(model, LEGACY / "capoyo.ckpt")
    assert (report.units, report.new_units) == (["unit0", "unit3"], ["unseen"])
    assert (report.sessions, report.new_sessions) == ([], ["tomorrow"])
    state = torch.load(LEGACY / "capoyo.ckpt", weights_only=False)["state_dict"]  # a file of ours
    row = state["model.unit_emb.weight"][state["model.unit_emb.vocab"]["unit3"]]
    torch.testing.assert_close(model.unit_emb.weight[model.unit_emb.tokenizer("unit3")], row)
    assert torch.equal(model.unit_emb.weight[model.unit_emb.tokenizer("unseen")], fresh)


@pytest.mark.parametrize(
    "name, settings, wanted",
    [
        ("capoyo", CAPOYO | {"dim": 32, "depth": 2}, r"Use model.dim=16 model.depth=1\."),
        ("capoyo", CAPOYO | {"standardize_inputs": True}, r"Use model.standardize_inputs=false\."),
        ("capoyo", CAPOYO | {"cross_heads": 1, "dim_head": 16}, r"Use model.dim_head=8 model.cross_heads=2"),
        ("capoyo", CAPOYO | {"latent_step": 0.5}, r"Use model.latent_step=0.25\."),
        ("capoyo", SIZES | {"modality": "spikes", "standardize_inputs": False}, "model.modality=mua"),
        ("poyo_plus", SIZES | {"modality": "spikes"}, r"Use model.boundary_tokens=true\."),
    ],
)
def test_the_settings_that_are_needed_are_named(dataset, name, settings, wanted):
    with pytest.raises(InputError, match=wanted):
        warm_start(make(dataset, settings), LEGACY / f"{name}.ckpt")


class Code:
    def __reduce__(self):
        return builtins.print, ("executed",)


def test_other_files_are_refused_and_nothing_in_them_is_executed(dataset, tmp_path, capsys):
    model = make(dataset, CAPOYO)
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {"model.x": Code()}}, tmp_path / "code.ckpt")
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    for name, match in (("text", "Lightning checkpoint"), ("code", "Lightning checkpoint"), ("absent", "absent.ckpt")):
        with pytest.raises(InputError, match=match):
            warm_start(model, tmp_path / f"{name}.ckpt")
    with pytest.raises(InputError, match="neurobridge adapt"):
        warm_start(model, tmp_path / "ours.pt")
    assert "executed" not in capsys.readouterr().out


def test_boundary_tokens_are_for_spikes_and_hide_with_their_unit(dataset):
    with pytest.raises(InputError, match="boundary_tokens"):
        make(dataset, CAPOYO | {"boundary_tokens": True})
    model = make(dataset, POYO_LIKE)
    keep = np.ones((50, 6), bool)
    keep[:, 2] = False
    inputs = collate([model.tokenize_with_targets(windows(dataset)[0], Mask("neuron", keep, ~keep))])["model_inputs"]
    units = inputs["input_unit_index"][inputs["input_mask"]]
    assert model.unit_emb.tokenizer("unit2") not in units
    bounds = inputs["input_token_type"][inputs["input_mask"]] > 0
    assert sorted(units[bounds].tolist()) == sorted(
        2 * model.unit_emb.tokenizer(["unit0", "unit1", "unit3", "unit4", "unit5"])
    )
