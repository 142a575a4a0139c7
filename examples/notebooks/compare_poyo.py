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
# settings are the packages' defaults. **The recording is simulated**, and 150 training steps are few for a network that
# starts from nothing: which encoder wins here says nothing about yours.

# %% Installs the package where it is missing. "../.." is the clone that this notebook lies in; on Colab, put
# "neurobridge-tb[demo,readers] @ git+" and the address of the repository.
import importlib.util
import subprocess
import sys

SOURCE = "../..[demo,readers]"
if importlib.util.find_spec("neurobridge_tb") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", SOURCE], check=True)

# %% [markdown]
# ## A recording

# %%
import numpy as np

from neurobridge_tb.datasets import build_recording, save_recording

BIN = 0.05
rng = np.random.default_rng(0)
n_trials, n_bins, n_units = 200, 15, 40
starts = np.arange(n_trials) * n_bins * BIN
times = np.arange(n_trials * n_bins) * BIN
angle = np.repeat(rng.uniform(0, 2 * np.pi, n_trials), n_bins)
speed = np.tile(np.sin(np.pi * (np.arange(n_bins) + 0.5) / n_bins) ** 2, n_trials)
velocity = np.stack([np.cos(angle) * speed, np.sin(angle) * speed], axis=1)
preferred = rng.normal(0, 1.5, (2, n_units))
counts = rng.poisson(np.exp(velocity @ preferred - 0.7)).clip(0, 20).astype(np.uint8)
parts = {"train": slice(0, 130), "valid": slice(130, 155), "test": slice(155, 200)}
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
window = {"model.sequence_length": 0.75, "model.latent_step": BIN, "model.num_latents_per_step": 1}
run = pretrain(**data, run_dir="reach_runs/pretrain", model="tiny", **window, **{"trainer.max_epochs": 10}, **quiet)

# %% [markdown]
# ## Decode, from 10 labelled trials and from all 130

# %%
import json

import pandas as pd

scores = {}
for labels in (10, 130):
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
    scores[f"{labels} trials"] = {row["decoder"]: row["R2"] for row in rows}
table = pd.DataFrame(scores).map("{0[value]:.2f} ({0[low]:.2f}-{0[high]:.2f})".format)
table.rename_axis("R² on the test trials (95 % interval)")

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(7, 3.2))
for shift, (name, of) in zip((-0.12, 0.12), scores.items(), strict=True):
    values = np.array([[r["value"], r["value"] - r["low"], r["high"] - r["value"]] for r in of.values()]).T
    axis.errorbar(np.arange(len(of)) + shift, values[0], yerr=values[1:], fmt="o", capsize=3, label=name)
axis.set_xticks(range(len(of)), of)
axis.set_ylabel("R² (95 % interval)")
axis.set_title("simulated", loc="left")
axis.legend()
plt.show()

# %% [markdown]
# On this recording the network from scratch is ahead of the pretrained one: the hand's velocity is nearly linear in the
# logarithm of the rates, which ten trials tell, and `frozen` reads the pretrained states as they are. On macaque motor
# cortex it is the other way round with few labels: see the page on representations.
#
# ## POYO's own script
#
# A training script or config of `torch_brain.models.POYO` trains `NeuroBridgeModel` with its `_target_` changed:
# see the folder `examples/neurobridge_lightning`.
