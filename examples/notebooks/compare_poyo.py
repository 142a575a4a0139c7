# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Compare encoders: NeuroBridge, POYO, GRU, ridge
#
# A movement of a hand is decoded from 40 units, from all labels and from few: by the pretrained encoder, by the same
# network from scratch, by POYO, by a GRU and by ridge on the last bins. Each sees the same windows and labels, and its
# settings are the packages' defaults. **The recording is simulated**: which encoder wins here says nothing about yours.

# %% The first cell installs the package where it is missing (Colab). Before it is on the package index, set SOURCE to a
# clone of the repository, or to "neurobridge-tb[demo,readers] @ git+" and its address.
import importlib.util
import subprocess
import sys

SOURCE = "neurobridge-tb[demo,readers]"
if importlib.util.find_spec("neurobridge_tb") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", SOURCE], check=True)

# %% [markdown]
# ## A recording

# %%
import numpy as np

from neurobridge_tb.datasets import build_recording, save_recording

BIN = 0.05
rng = np.random.default_rng(0)
n_trials, n_bins, n_units = 240, 12, 40
starts = np.arange(n_trials) * n_bins * BIN
times = np.arange(n_trials * n_bins) * BIN
angle = np.repeat(rng.uniform(0, 2 * np.pi, n_trials), n_bins)
speed = np.tile(np.sin(np.pi * (np.arange(n_bins) + 0.5) / n_bins) ** 2, n_trials)
velocity = np.stack([np.cos(angle) * speed, np.sin(angle) * speed], axis=1)
preferred = rng.normal(0, 1.5, (2, n_units))
counts = rng.poisson(np.exp(velocity @ preferred - 0.7)).clip(0, 20).astype(np.uint8)
parts = {"train": slice(0, 160), "valid": slice(160, 190), "test": slice(190, 240)}
recording = build_recording(
    brainset_id="simulated",
    session_id="reach",
    subject_id="virtual",
    units={"id": [f"u{i}" for i in range(n_units)]},
    counts=(counts, BIN),
    behavior={"hand_velocity": (times + BIN / 2, velocity)},
    splits={k: (starts[part], starts[part] + n_bins * BIN) for k, part in parts.items()},
    simulated=True,
)
save_recording(recording, "reach_data/reach.h5")

# %% [markdown]
# ## Pretrain on the activity alone

# %%
from neurobridge_tb.jobs.finetune import finetune
from neurobridge_tb.jobs.pretrain import pretrain

quiet = {"trainer.enable_progress_bar": False, "device": "cpu"}
data = {"dataset": "binned", "root": "reach_data", "windows": "trial"}
window = {"model.sequence_length": n_bins * BIN, "model.latent_step": BIN, "model.num_latents_per_step": 1}
pretrain(**data, run_dir="reach_runs/pretrain", model="tiny", **window, **{"trainer.max_epochs": 10}, **quiet)

# %% [markdown]
# ## Decode, from 10 labelled trials and from all 160

# %%
import json

import pandas as pd

tables = {}
for labels in (10, 160):
    run = finetune(
        **data,
        pretrained="reach_runs/pretrain/model",
        run_dir=f"reach_runs/finetune_{labels}",
        target="hand_velocity_2d",
        labels=labels,
        steps=150,
        history=5,
        **quiet,
    )
    rows = json.loads((run / "metrics.json").read_text())["rows"]
    tables[f"{labels} trials"] = {r["decoder"]: "{value:.2f} ({low:.2f}-{high:.2f})".format(**r["R2"]) for r in rows}
pd.DataFrame(tables).rename_axis("R² on the test trials")

# %% [markdown]
# ## POYO's own script
#
# A training script or config of `torch_brain.models.POYO` trains `NeuroBridgeModel` with its `_target_` changed:
# see the folder `examples/neurobridge_lightning`.
