"""What a user of torch_brain's POYO does, NeuroBridgeModel does too."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from small_models import save_reaches
from torch_brain.transforms import Compose, UnitDropout

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, RandomFixedWindowSampler, collate, pad8, track_mask8
from neurobridge_tb.datasets import BinnedRecordings
from neurobridge_tb.errors import InputError
from neurobridge_tb.vision_imports import prepare_torchvision

# A model config of POYO's example, smaller, and with our class as its target.
CONFIG = OmegaConf.create(
    {
        "model": {
            "_target_": "neurobridge_tb.NeuroBridgeModel",
            "sequence_length": 1.0,
            "latent_step": 0.25,
            "num_latents_per_step": 4,
            "dim": 32,
            "depth": 1,
            "dim_head": 16,
            "cross_heads": 2,
            "self_heads": 2,
            "ffn_dropout": 0.0,
            "lin_dropout": 0.0,
            "atn_dropout": 0.0,
        }
    }
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Spikes of twelve units that are tuned to the velocity of a hand."""
    root = tmp_path_factory.mktemp("reaches")
    save_reaches(root, seconds=20, n_units=12, splits={"train": ([0.0], [19.9])})
    return BinnedRecordings(root)


@pytest.fixture
def model(dataset):
    torch.manual_seed(0)
    model = instantiate(CONFIG.model, dim_out=2)
    model.init_vocabs(dataset)
    return model


def sample(model, window):
    """Inputs and targets, as POYO's example pairs them."""
    times, velocity = window.hand.timestamps, window.hand.velocity
    return model.tokenize(window), {
        "timestamps": pad8(times.astype(np.float32)),
        "values": pad8(velocity.astype(np.float32)),
        "output_mask": track_mask8(times),
    }


def test_tokens_are_flat_and_the_times_come_beside_them(model, dataset):
    window = dataset[DatasetIndex("reaches", 2.0, 3.0)]
    assert {"input_unit_index", "input_timestamps", "input_mask", "latent_index", "session_index"} <= set(
        model.tokenize(window)
    )
    x = collate([model.tokenize(window)] * 2)
    output = model(**x, output_timestamps=torch.rand(2, 7))
    assert output.shape == (2, 7, 2)


def test_without_dim_out_it_predicts_each_unit_at_the_times_given(dataset):
    model = instantiate(CONFIG.model).eval()
    model.init_vocabs(dataset)
    window = dataset[DatasetIndex("reaches", 2.0, 3.0)]
    x, times = collate([model.tokenize(window)]), torch.tensor([[0.1, 0.5, 0.9]])
    log_rates = model(**x, output_timestamps=times)
    assert log_rates.shape == (1, 3, 12)
    some = model(**x, output_timestamps=times, output_mask=torch.tensor([[True, False, True]]))
    torch.testing.assert_close(some[:, [0, 2]], log_rates[:, [0, 2]])


def test_unpacked_output_leaves_out_the_padding(model, dataset):
    model.eval()
    windows = [dataset[DatasetIndex("reaches", 2.0, end)] for end in (3.0, 2.5)]
    x, y = collate([sample(model, window) for window in windows])
    packed = model(**x, output_timestamps=y["timestamps"], output_mask=y["output_mask"])
    unpacked = model(**x, output_timestamps=y["timestamps"], output_mask=y["output_mask"], unpack_output=True)
    assert [len(window) for window in unpacked] == [20, 10]
    for i, window in enumerate(unpacked):
        torch.testing.assert_close(window, packed[i, : len(window)])
    with pytest.raises(InputError, match="output_mask"):
        model(**x, output_timestamps=y["timestamps"], unpack_output=True)


def test_it_learns_a_behaviour_in_poyos_loop_with_unit_dropout(model, dataset):
    transform = Compose([UnitDropout(min_units=4, mode_units=10, max_units=12, seed=0), lambda w: sample(model, w)])
    sampler = RandomFixedWindowSampler(
        sampling_intervals=dataset.get_sampling_intervals("train"),
        window_length=model.sequence_length,
        generator=torch.Generator().manual_seed(0),
    )
    np.random.seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        for x, y in torch.utils.data.DataLoader(
            [transform(dataset[index]) for index in sampler], batch_size=8, collate_fn=collate
        ):
            prediction = model(**x, output_timestamps=y["timestamps"])[y["output_mask"]]
            loss = torch.nn.functional.mse_loss(prediction, y["values"][y["output_mask"]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])


def test_a_window_without_a_spike_is_no_accident(model, dataset):
    window = dataset[DatasetIndex("reaches", 2.0, 3.0)]
    window.spikes = window.spikes.select_by_mask(np.zeros(len(window.spikes), dtype=bool))
    full = dataset[DatasetIndex("reaches", 2.0, 3.0)]
    x = collate([model.tokenize(w) for w in (window, full)])
    assert torch.isfinite(model(**x, output_timestamps=torch.rand(2, 5))).all()


@pytest.mark.parametrize("as_config", [False, True], ids=["dict", "hydra config"])
def test_a_lightning_checkpoint_of_a_script_loads(model, dataset, tmp_path, as_config):
    prepare_torchvision()
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self, cfg, model):
            super().__init__()
            self.model = model
            self.save_hyperparameters(cfg if as_config else OmegaConf.to_container(cfg))

    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False, barebones=False
    )
    trainer.strategy.connect(Module(CONFIG, model))
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    again = NeuroBridgeModel.load_pretrained(tmp_path / "last.ckpt")
    assert again.config == model.config
    x = collate([model.tokenize(dataset[DatasetIndex("reaches", 2.0, 3.0)])])
    times = torch.rand(1, 5)
    outputs = [m.eval()(**x, output_timestamps=times) for m in (model, again)]
    torch.testing.assert_close(*outputs)
    again.save_pretrained(tmp_path / "folder")
    assert NeuroBridgeModel.load_pretrained(tmp_path / "folder").config["dim_out"] == 2


@pytest.mark.parametrize("prefix", ["model.", "", "model._orig_mod.", "_orig_mod.model.", "module.model."])
@pytest.mark.parametrize("with_target", [True, False], ids=["_target_", "arguments alone"])
def test_names_of_a_checkpoint_may_be_wrapped(model, dataset, tmp_path, prefix, with_target):
    """As torch.compile and distributed training name weights; POYO's load_pretrained needs no ``_target_`` either."""
    settings = OmegaConf.to_container(CONFIG.model)
    if not with_target:
        del settings["_target_"]
    state = {prefix + name: value for name, value in model.state_dict().items()}
    saved = {"state_dict": state, "hyper_parameters": {"model": settings, "data_root": tmp_path}}
    torch.save(saved, tmp_path / "last.ckpt")
    again = NeuroBridgeModel.load_pretrained(tmp_path / "last.ckpt")
    x, times = collate([model.tokenize(dataset[DatasetIndex("reaches", 2.0, 3.0)])]), torch.rand(1, 5)
    torch.testing.assert_close(*(m.eval()(**x, output_timestamps=times) for m in (model, again)))


def test_vocabularies_are_made_extended_and_cut_one_by_one(dataset):
    model = instantiate(CONFIG.model).eval()
    window, times = dataset[DatasetIndex("reaches", 2.0, 3.0)], torch.rand(1, 5)
    with pytest.raises(InputError, match="init_vocabs"):
        model.tokenize(window)
    model.unit_emb.initialize_vocab(["elsewhere", *dataset.get_unit_ids()])
    model.session_emb.initialize_vocab(dataset.recording_ids)
    with torch.no_grad():
        model.gain_emb.weight.normal_()
    before = model(**collate([model.tokenize(window)]), output_timestamps=times)
    model.unit_emb.extend_vocab(["new"])
    model.unit_emb.subset_vocab(dataset.get_unit_ids())
    assert len(model.decoder.state_rows.vocab) == len(model.unit_emb.vocab) == 13
    assert not model.unit_stats.weight.requires_grad
    torch.testing.assert_close(model(**collate([model.tokenize(window)]), output_timestamps=times), before)


def test_without_an_input_mask_all_tokens_count(model, dataset):
    model.eval()
    x, times = collate([model.tokenize(dataset[DatasetIndex("reaches", 2.0, 3.0)])]), torch.rand(1, 5)
    n = int(x["input_mask"].sum())
    tokens = {name: x[name][:, :n] for name in ("input_unit_index", "input_timestamps")}
    whole = model(**x, output_timestamps=times)
    unmasked = {name: value for name, value in x.items() if name != "input_mask"} | tokens
    torch.testing.assert_close(model(**unmasked, output_timestamps=times), whole)


def test_a_behaviour_uses_every_parameter(model, dataset):
    """Distributed training waits for a gradient of each."""
    x = collate([model.tokenize(dataset[DatasetIndex("reaches", 2.0, 3.0)])])
    model(**x, output_timestamps=torch.rand(1, 5)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
