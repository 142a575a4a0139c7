"""The example scripts run."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_pretraining_sweeps_over_seeds_with_hydra(binned_root, tmp_path):
    subprocess.run(
        [
            sys.executable, EXAMPLES / "pretrain.py", "--multirun", "dataset=binned", f"dataset.root={binned_root}",
            "model=tiny", "seed=0,1", "run_dir=runs/seed${seed}", "loader.batch_size=16", "trainer.max_epochs=1",
            "trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
        ],
        cwd=tmp_path,
        check=True,
    )  # fmt: skip
    losses = [pd.read_csv(tmp_path / "runs" / f"seed{s}" / "metrics.csv")["train/loss"].dropna().item() for s in (0, 1)]
    assert losses[0] != losses[1]
    assert all((tmp_path / "runs" / f"seed{s}" / "model" / "model.safetensors").exists() for s in (0, 1))
