"""Few training windows get a small network and small batches; what was chosen is printed and saved."""

import pytest
from omegaconf import OmegaConf

from neurobridge_tb.data.windows import batch_size_for
from neurobridge_tb.engine.config import compose_config
from neurobridge_tb.jobs.pretrain import pretrain


@pytest.mark.parametrize(("windows", "size"), [(1, 8), (300, 8), (600, 16), (1_988, 32), (2_048, 64), (1_000_000, 64)])
def test_batches_follow_from_the_number_of_windows(windows, size):
    assert batch_size_for(windows) == size


def test_few_windows_are_read_by_the_laptop_model(binned_root, tmp_path, capsys):
    settings = {"dataset": "binned", "root": str(binned_root), "run_dir": str(tmp_path), "max_epochs": 1}
    pretrain(**settings, model={"dim": 16, "dim_head": 8, "num_factors": 4, "num_latents_per_step": 2})
    printed = capsys.readouterr().out
    assert "80 training windows: model=laptop" in printed and "batches of 8 windows" in printed
    saved = OmegaConf.load(tmp_path / "config.yaml").model
    assert (saved.depth, saved.ffn_dropout, saved.dim) == (2, 0.1, 16)
    assert compose_config("pretrain", ["dataset=binned", "dataset.root=a", "model=small"]).model.depth == 6
