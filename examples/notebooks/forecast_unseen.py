# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Forecasting units that were never seen
#
# Three recordings of different units are simulated; the forecaster trains on two and forecasts the third, of
# which it gets a minute of reference activity and no training. **Everything here is simulated.** Beside it stands
# the last smoothed rate, which is hard to beat for a unit that was never seen.

# %% Installs the package where it is missing. "../.." is the clone that this notebook lies in; on Colab, put
# "neurobridge-tb[demo,readers] @ git+" and the address of the repository.
import importlib.util
import subprocess
import sys

SOURCE = "../..[demo,readers]"
if importlib.util.find_spec("neurobridge_tb") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", SOURCE], check=True)

# %% [markdown]
# ## Recordings
#
# Trials of 1.2 s with two conditions; half of the units rise, the others fall.

# %%
import numpy as np

from neurobridge_tb.datasets import build_recording, save_recording

BIN = 0.05
rng = np.random.default_rng(0)
for name, n_units in (("monday", 40), ("tuesday", 36), ("wednesday", 32)):
    starts = np.arange(150) * 1.2
    condition = rng.integers(0, 2, len(starts))
    course = np.sin(np.pi * (np.arange(24) + 0.5) / 24)
    gain = rng.normal(0, 1.2, n_units)
    log_rates = (2.0 * condition - 1)[:, None, None] * course[:, None] * gain + rng.normal(-0.5, 0.5, n_units)
    counts = rng.poisson(np.exp(log_rates)).clip(0, 20).reshape(-1, n_units).astype(np.uint8)
    parts = {"train": slice(0, 100), "valid": slice(100, 120), "test": slice(120, 150)}
    recording = build_recording(
        brainset_id="simulated",
        session_id=name,
        subject_id="virtual",
        units={"id": [f"{name}/{i}" for i in range(n_units)]},
        counts=(counts, BIN),
        trials={"start": starts, "end": starts + 1.2, "condition": condition},
        splits={k: (starts[part], starts[part] + 1.2) for k, part in parts.items()},
        simulated=True,
    )
    save_recording(recording, f"forecast_data/{name}.h5")

# %% [markdown]
# ## Train on two, forecast the third

# %%
import json

import pandas as pd

from neurobridge_tb.jobs.forecast import forecast

run = forecast(
    dataset="binned",
    root="forecast_data",
    run_dir="forecast_run",
    forecaster="tiny",
    unseen=["wednesday"],
    windows="trial",
    psth_condition="condition",
    **{
        "model.bin_size": BIN,
        "model.history": 0.6,
        "model.horizon": 0.6,
        "model.unit_identity": "features",
        "trainer.max_epochs": 5,
        "trainer.enable_progress_bar": False,
        "device": "cpu",
    },
)
rows = json.loads((run / "metrics.json").read_text())["rows"]
pd.DataFrame([{k: row[k] for k in ("recordings", "forecast", "bits/spike")} for row in rows]).round(3)

# %% [markdown]
# ## Look
#
# Bits/spike is the gain over each unit's mean rate; 0 is that mean. Single windows, the decay of the score with
# the time ahead, and each unit's score beside the baseline's:

# %%
from IPython.display import Image, display

for figure in sorted(run.rglob("*unseen*.png")):
    display(Image(figure, width=720))
