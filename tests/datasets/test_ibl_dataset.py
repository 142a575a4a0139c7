"""``IblBrainWideMap2025`` on a simulated session: splits, pretraining, decoding, and POYO on the wheel's velocity."""

import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from neurobridge_tb import MODALITY_REGISTRY, NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, RandomFixedWindowSampler, collate, pad8
from neurobridge_tb.datasets import IblBrainWideMap2025, build_recording, is_simulated
from neurobridge_tb.datasets.validation.examination import find_faults
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.engine.run_folder import read_metrics
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.decode import decode
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.simulation import simulate_ibl_sessions

PIPELINE = Path(__file__).parents[2] / "brainsets_pipelines" / "ibl_brain_wide_map_2025" / "pipeline.py"
ID = "simulatedlab_SIM_000_2025-01-01_001"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """``--processed-dir`` with one simulated session of two probes, 150 s."""
    from torch_brain.pipeline import runner

    folder = tmp_path_factory.mktemp("ibl")
    simulate_ibl_sessions(folder, seconds=150, n_units=8)
    folders = [f"--raw-dir={folder / 'raw'}", f"--processed-dir={folder / 'processed'}", f"--single={ID}"]
    with patch("sys.argv", ["runner", str(PIPELINE), *folders]):
        runner.run()
    return folder / "processed"


@pytest.fixture(scope="module")
def pretrained(root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("pretrain")
    overrides = [
        "dataset=ibl", f"dataset.root={root}", "model=tiny", "trainer.max_epochs=1", f"run_dir={run_dir}",
        "loader.batch_size=16", "trainer.enable_progress_bar=false", "device=cpu",
    ]  # fmt: skip
    return pretrain(compose_config("pretrain", overrides))


def test_windows_of_a_split_stay_in_its_blocks(root):
    dataset = IblBrainWideMap2025(root)
    assert is_simulated(dataset) and len(dataset.get_unit_ids()) == 16
    assert dataset.get_unit_ids()[0].startswith(f"{ID}/probe00/")
    intervals = {split: dataset.get_sampling_intervals(split)[ID] for split in ("train", "valid", "test")}
    spans = sorted((start, end) for interval in intervals.values() for start, end in interval)
    assert all(start - end == pytest.approx(1.0) for (_, end), (start, _) in zip(spans[:-1], spans[1:], strict=True))
    window = dataset[DatasetIndex(ID, intervals["test"].start[0], intervals["test"].start[0] + 1)]
    assert window.units.reference_features.shape == (16, 33)
    assert abs(len(window.wheel.velocity) - 1000) <= 1


def test_the_file_has_no_faults(root):
    assert find_faults(root / "ibl_brain_wide_map_2025" / f"{ID}.h5") == []


def test_snippets_of_the_guide_run(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    guide = (Path(__file__).parents[2] / "docs" / "ibl.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^<!-- not run -->\n```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    variables: dict = {}
    for snippet in snippets:
        if "IblBrainWideBench2026" not in snippet:  # whose files are simulated in their own test
            exec(snippet, variables)
    assert len(snippets) == 4


def test_split_type_none_samples_whole_recordings_only(root):
    dataset = IblBrainWideMap2025(root, split_type=None)
    assert dataset.get_sampling_intervals()[ID].end[-1] == pytest.approx(150, abs=1)
    with pytest.raises(InputError, match="split_type='blocks'"):
        dataset.get_sampling_intervals("train")


def test_not_prepared_names_the_command(tmp_path):
    with pytest.raises(InputError, match="Run: brainsets prepare ibl_brain_wide_map_2025"):
        IblBrainWideMap2025(tmp_path)


def test_root_comes_from_the_brainsets_config(root, monkeypatch):
    monkeypatch.setattr("neurobridge_tb.datasets.ibl.get_processed_dir", lambda: str(root))
    assert IblBrainWideMap2025().recording_ids == [ID]


def test_pretraining_runs_on_spikes(pretrained):
    metrics = read_metrics(pretrained)
    assert metrics["simulated"] and metrics["dataset"] == ID
    model = NeuroBridgeModel.load_pretrained(pretrained / "model")
    assert (model.modality, model.sequence_length, model.latent_step, model.bin_size) == ("spikes", 1.0, 0.125, 0.02)


def test_decoding_finds_the_wheels_velocity(root, pretrained, tmp_path):
    config = compose_config(
        "decode",
        ["dataset=ibl", f"dataset.root={root}", f"pretrained={pretrained}/model", f"run_dir={tmp_path}",
         "target=wheel_velocity"],
    )  # fmt: skip
    rows = {row["decoder"]: row["R2"]["value"] for row in read_metrics(decode(config))["rows"]}
    assert set(rows) == {"latents", "latents of random weights", "spike counts, 10 bins"}
    assert rows["spike counts, 10 bins"] > 0.3


def test_poyo_decodes_it(root):
    """POYO of torch_brain, with its own vocabulary, tokenizer, samplers and collate."""
    models = pytest.importorskip("torch_brain.models.poyo")
    torch.manual_seed(0)
    spec = MODALITY_REGISTRY["wheel_velocity"]
    model = models.POYO(
        sequence_length=1.0, latent_step=0.125, num_latents_per_step=4, dim_out=spec.dim, dim=32, depth=1, dim_head=16,
        self_heads=2, ffn_dropout=0, lin_dropout=0,
    )  # fmt: skip
    dataset = IblBrainWideMap2025(root)
    model.init_vocabs(dataset)

    def transform(window):
        times, values = (window.get_nested_attribute(key)[::20] for key in (spec.timestamp_key, spec.value_key))
        tokens = model.tokenize(window)
        return {"inputs": tokens | {"output_timestamps": pad8(times)}, "target": pad8(values)}

    dataset.transform = transform
    sampler = RandomFixedWindowSampler(
        sampling_intervals=dataset.get_sampling_intervals("train"),
        window_length=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    batch = collate([dataset[index] for index in list(sampler)[:8]])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        output = model(**batch["inputs"])
        assert output.shape == batch["target"].shape and output.shape[-1] == 1
        loss = spec.loss_fn(output.float(), batch["target"].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0] and model.unit_emb.weight.grad.any()


def test_behaviour_with_the_name_of_a_modality_lies_where_the_modality_looks():
    times = np.arange(0, 2, 0.1)
    names = ("wheel_velocity", "running_speed", "hand_velocity_2d")
    data = build_recording(
        brainset_id="lab",
        session_id="s",
        subject_id="mouse",
        units={"id": ["a"]},
        spikes=(np.array([0.5]), np.array([0])),
        end=2.0,
        behavior={name: (times, np.ones((len(times), MODALITY_REGISTRY[name].dim))) for name in names},
    )
    for name in names:
        spec = MODALITY_REGISTRY[name]
        assert data.get_nested_attribute(spec.value_key).shape == (20, spec.dim)
        np.testing.assert_array_equal(data.get_nested_attribute(spec.timestamp_key), times)
