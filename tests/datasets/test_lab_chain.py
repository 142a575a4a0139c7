"""From a lab's own file to a decoded result by commands alone: calcium, an ALF session; both simulated."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from lab_files import SECONDS, write_alf, write_nwb

from neurobridge_tb.cli.main import main

TINY = ["model=tiny", "model.num_latents_per_step=1", "trainer.max_epochs=1", "trainer.limit_train_batches=3"]


def call(*arguments):
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def pretrain_and_decode(tmp_path, modality, target):
    runs = tmp_path / "runs"
    root = f"dataset.root={tmp_path / 'processed'}"
    call("pretrain", "dataset=binned", root, f"run_dir={runs / 'pretrain'}", f"model.modality={modality}", *TINY)
    call(
        "decode", root, f"pretrained={runs / 'pretrain' / 'model'}", f"run_dir={runs / 'decode'}", f"target={target}",
        "networks=false", "areas=false", "folds=3",
    )  # fmt: skip
    content = json.loads((runs / "decode" / "metrics.json").read_text())
    return content, {row["decoder"]: row for row in content["rows"]}


def test_calcium_traces(tmp_path):
    pytest.importorskip("pynwb")
    path = write_nwb(tmp_path / "imaging.nwb", calcium=True)
    printed = call("import", "nwb", str(path), "--out", str(tmp_path / "processed"))
    assert "mua" in printed and "holds the units' values" in printed
    content, rows = pretrain_and_decode(tmp_path, "mua", "trials.stimulus")
    assert content["classes"] == ["cat", "dog"] and content["examples"] == 40
    for row in rows.values():  # there is nothing to find
        assert row["p"] > 0.01


def test_alf_session(tmp_path):
    pytest.importorskip("pyarrow")
    session = tmp_path / "ses" / "alf"
    folder = write_alf(session / "probe00")
    starts = np.arange(1.0, SECONDS - 4, 3.0)
    right = np.arange(len(starts)) % 3 == 0
    times, clusters = np.load(folder / "spikes.times.npy"), np.load(folder / "spikes.clusters.npy")
    burst = np.concatenate([s + 0.1 + 0.01 * np.arange(40) for s in starts[right]])  # cluster 2 fires before "right"
    order = np.argsort(times := np.concatenate([times, burst]))
    np.save(folder / "spikes.times.npy", times[order])
    np.save(folder / "spikes.clusters.npy", np.concatenate([clusters, np.full(len(burst), 2, np.uint32)])[order])
    trials = {"intervals_0": starts, "intervals_1": starts + 1.0, "choice": np.where(right, 1, -1)}
    pd.DataFrame(trials).to_parquet(session / "_ibl_trials.table.pqt")
    call("import", "alf", str(session), "--out", str(tmp_path / "processed"))
    content, rows = pretrain_and_decode(tmp_path, "spikes", "trials.choice")
    assert content["classes"] == ["-1", "1"]
    assert rows["spike counts"]["accuracy"]["low"] > 0.8
    assert rows["latents, factors and counts"]["accuracy"]["low"] > 0.8
