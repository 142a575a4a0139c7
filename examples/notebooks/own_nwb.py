# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your own NWB file: from the file to a decoded label
#
# Set `FILE` to an NWB file of yours and `TARGET` to a column of one of its tables. Without a file, one is made
# here with pynwb: 30 units whose rates depend on which of three stimuli is on. **That file is simulated.**

# %% Installs the package where it is missing. "../.." is the clone that this notebook lies in; on Colab, put
# "neurobridge-tb[demo,readers] @ git+" and the address of the repository.
import importlib.util
import subprocess
import sys

SOURCE = "../..[demo,readers]"
if importlib.util.find_spec("neurobridge_tb") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", SOURCE], check=True)

# %%
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

FILE: str | None = None  # e.g. "sub-4_ses-4.nwb"
TARGET = "trials.stimulus"

# %% [markdown]
# ## A file, where you have none


# %%
def write_example(path: Path) -> Path:
    """240 trials of 1 s, each of one of three stimuli; a third of the units prefers each, 0.1 s after its onset."""
    import pynwb

    rng = np.random.default_rng(0)
    nwb = pynwb.NWBFile("simulated spikes", "example", datetime(2024, 1, 1, tzinfo=UTC))
    nwb.subject = pynwb.file.Subject(subject_id="virtual", species="Mus musculus", sex="U", age="P90D")
    group = nwb.create_electrode_group(
        "g", description="one probe", location="visual cortex", device=nwb.create_device("probe")
    )
    for area in ("V1", "V4"):
        nwb.add_electrode(group=group, location=area)
    nwb.add_trial_column("stimulus", "what was shown")
    stimuli = rng.permutation(np.repeat(["cat", "dog", "house"], 80))
    for k, stimulus in enumerate(stimuli):
        nwb.add_trial(start_time=1.5 * k, stop_time=1.5 * k + 1.0, stimulus=stimulus)
    times = np.arange(0, 1.5 * len(stimuli), 0.005)
    since = times % 1.5
    shown = stimuli[(times // 1.5).astype(int)]
    for unit in range(30):
        prefers = ("cat", "dog", "house")[unit % 3]
        rate = 4 + rng.uniform(1, 4) * ((shown == prefers) & (since > 0.1) & (since < 0.6))
        spikes = times[rng.random(len(times)) < rate * 0.005]
        nwb.add_unit(spike_times=spikes, electrodes=[unit % 2])
    with pynwb.NWBHDF5IO(path, "w") as file:
        file.write(nwb)
    return path


source = Path(FILE) if FILE else write_example(Path("example.nwb"))

# %% [markdown]
# ## Import
#
# What was taken, left and assumed is said. The same as a command: `neurobridge import nwb FILE --out processed/nwb`.

# %%
from neurobridge_tb.datasets import save_recording
from neurobridge_tb.datasets.readers import Choices, Notes, read_nwb

notes = Notes()
recording = read_nwb(source, Choices(), notes=notes)
path = Path("processed/nwb") / f"{recording.session.id}.h5"
save_recording(recording, path)
print("taken:", *notes.taken, "left:", *notes.left, "assumed:", *notes.assumed, sep="\n  ")

# %% [markdown]
# ## Look
#
# Every table and series printed here can be a target.

# %%
from rich.console import Console

from neurobridge_tb.datasets.validation.examination import examine
from neurobridge_tb.report.recording_tables import print_recording

print_recording(Console(width=100), path, *examine(path))

# %% [markdown]
# ## Pretrain, without labels
#
# Parts of the activity are hidden, and predicted from the rest. A small network, few passes: seconds to minutes.

# %%
from neurobridge_tb.jobs.pretrain import pretrain

quiet = {"trainer.enable_progress_bar": False, "device": "cpu"}
settings = {"model.modality": "spikes", "trainer.max_epochs": 3}  # an import leaves spikes as events
run = pretrain(dataset="binned", root="processed/nwb", run_dir="runs/pretrain", model="tiny", **settings, **quiet)

# %% [markdown]
# ## Decode
#
# Each trial is decoded once, by decoders fitted to the other trials: from spike counts, from the latents, from
# both, and from the latents of an untrained network. The best row can be any of them; with few trials and linear
# codes, counts are hard to beat.

# %%
import json

import pandas as pd

from neurobridge_tb.jobs.decode import decode
from neurobridge_tb.report.terminal_table import print_rows

decoded = decode(
    dataset="binned",
    root="processed/nwb",
    pretrained="runs/pretrain/model",
    run_dir="runs/decode",
    target=TARGET,
    bins=0.1,
)
print_rows(decoded / "metrics.json", Console(width=120))

# %%
from IPython.display import Image, display

for figure in sorted((decoded / "figures").glob("*.png")):
    display(Image(figure, width=560))

# %% [markdown]
# ## The latents themselves
#
# For an analysis of your own: an array a recording, with times and the columns of the table; and two pictures of it.

# %%
from neurobridge_tb.jobs.latents import latents

table, colour = TARGET.split(".")
arrays = latents(
    dataset="binned",
    root="processed/nwb",
    pretrained="runs/pretrain/model",
    run_dir="runs/latents",
    table=table,
    colour=colour,
)
print(*sorted(np.load(next(arrays.glob("*.npz")))), sep=", ")
for figure in sorted((arrays / "figures").glob("*.png")):
    display(Image(figure, width=560))

# %% [markdown]
# ## What it says
#
# The table names the best decoder, and those that are not apart from it. A page of all runs:

# %%
from neurobridge_tb.report.page import build_report

result = json.loads((decoded / "metrics.json").read_text())
scores = pd.DataFrame({row["decoder"]: row["accuracy"] for row in result["rows"] if "accuracy" in row}).T
print(scores)
print("Report:", build_report("runs"))
