# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A virtual monkey: from activity to pictures
#
# A virtual ventral stream (V1, V4, IT; 1,024 electrodes) looks at drawn images; an encoder is pretrained, aligned
# with an image network, and what the animal saw is drawn from its activity. **Everything here is simulated**, and
# small: a fifth of the images of `neurobridge demo`. With recordings in TVSD's form, the cells below `prepare`
# stay as they are.

# %% Installs the package where it is missing. "../.." is the clone that this notebook lies in; on Colab, put
# "neurobridge-tb[demo,readers] @ git+" and the address of the repository.
import importlib.util
import subprocess
import sys

SOURCE = "../..[demo,readers]"
if importlib.util.find_spec("neurobridge_tb") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", SOURCE], check=True)

# %% [markdown]
# ## Raw files, in the layout of TVSD

# %%
import subprocess
import sys
from pathlib import Path

from neurobridge_tb.simulation import simulate_tvsd

W = Path("monkey")
simulate_tvsd(W, n_concepts=100, images_per_concept=6, n_repeats=8, seed=0)

# %% [markdown]
# ## Prepare, with upstream's command

# %%
brainsets = Path(sys.executable).parent / "brainsets"
command = [brainsets, "prepare", "tvsd", "--single", "monkeyF_norm", "--raw-dir", W / "raw", "--use-active-env"]
done = subprocess.run([*command, "--processed-dir", W / "processed"], check=True, capture_output=True, text=True)
print(done.stdout.splitlines()[0], "done")

# %% [markdown]
# ## Pretrain, embed the images, align
#
# Nearly all of the model is in closed form here: factor analysis inside the encoder, and a ridge read-out of each
# layer of the image network. One epoch each keeps this short.

# %%
from neurobridge_tb.jobs.align import align
from neurobridge_tb.jobs.embed import embed
from neurobridge_tb.jobs.pretrain import pretrain

quiet = {"trainer.enable_progress_bar": False, "device": "cpu"}
data = {"dataset": "tvsd", "root": f"{W}/processed", "seed": 0}
pretrain(**data, run_dir=f"{W}/runs/pretrain", model="tiny", **{"trainer.max_epochs": 1}, **quiet)
embed(
    images=f"{W}/images",
    out=f"{W}/embeddings.h5",
    encoder="timm:tf_efficientnet_lite2",
    image_size=96,
    layers=["blocks.1@4x4", "blocks.2@4x4", "blocks.3@4x4", "blocks.4@4x4", "final"],
)
short = {"stage1.epochs": 1, "stage2.epochs": 0, "readout.dim_hidden": 64}
aligned = align(
    **data,
    embeddings=f"{W}/embeddings.h5",
    pretrained=f"{W}/runs/pretrain/model",
    run_dir=f"{W}/runs/align",
    **short,
    **quiet,
)

# %% [markdown]
# ## Which image was it?
#
# Retrieval among the 100 test images, beside ridge, an MLP, shuffled labels, and the noise ceiling. Chance is 1 %.

# %%
import json

import pandas as pd

from neurobridge_tb.jobs.evaluate import evaluate

pairs = {**data, "embeddings": f"{W}/embeddings.h5", "aligned": aligned}
found = json.loads((evaluate(**pairs, run_dir=f"{W}/runs/evaluate", resamples=200) / "retrieval.json").read_text())
rows = [r for r in found["rows"] if r["direction"] == "neural to image"]
pd.DataFrame(
    [{"model": r["model"], "trials": r["trials"], **{f"top-1 {k}": v for k, v in r["top1"].items()}} for r in rows]
)

# %% [markdown]
# ## Draw it
#
# The decoder of drawn pictures comes with the package; a network that took no part judges.

# %%
import h5py
import matplotlib.pyplot as plt

from neurobridge_tb.jobs.reconstruct import reconstruct

drawn = reconstruct(
    **pairs,
    images=f"{W}/images",
    run_dir=f"{W}/runs/reconstruct",
    **{"flow.candidates": 1, "judge.image_size": 96},
)
with h5py.File(drawn / "reconstructions.h5") as file:
    pictures = {"seen": file["seen"][:10], "drawn": file["flow"][:10, 0], "nearest image": file["nearest"][:10, 0]}
figure, axes = plt.subplots(len(pictures), 10, figsize=(12, 4))
for row, (name, images) in zip(axes, pictures.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow(image)
        axis.set_axis_off()
    row[0].set_title(name, loc="left")
plt.show()

# %%
metrics = json.loads((drawn / "metrics.json").read_text())
pd.DataFrame({row["backend"]: row["metrics"] for row in metrics["rows"]}).T.round(3)

# %% [markdown]
# ## One page of it all

# %%
from neurobridge_tb.report.page import build_report

print("Report:", build_report(W))
