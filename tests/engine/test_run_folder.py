"""Which folders a run goes on in: a new one, its own wherever it lies; no other one's. And what a log shows of it."""

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from neurobridge_tb.configs.pretrain import PretrainConfig
from neurobridge_tb.engine.checkpoint_io import SafeCheckpointIO
from neurobridge_tb.engine.config import settle
from neurobridge_tb.engine.modules.masked import PretrainingModule
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.engine.saved_settings import Settings
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.pretrain import pretrain
from neurobridge_tb.jobs.reconstruct import reconstruct
from neurobridge_tb.jobs.score import score

SHORT = {"dataset": "binned", "model": "tiny", "batch_size": 16, "max_epochs": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def finished(binned_root, tmp_path_factory):
    return pretrain(**SHORT, root=binned_root, run_dir=tmp_path_factory.mktemp("run") / "first")


def test_a_folder_without_a_checkpoint_is_new(binned_root, tmp_path):
    with pytest.raises(InputError, match="batch_size"):
        pretrain(**SHORT | {"batch_size": 100_000}, root=binned_root, run_dir=tmp_path)
    assert (pretrain(**SHORT, root=binned_root, run_dir=tmp_path) / "metrics.json").exists()


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.json", "checkpoints/last.ckpt", "config.yaml", "model/x.bin"])
def test_files_of_another_program_are_refused_and_kept(name, binned_root, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine: 1")
    with pytest.raises(InputError, match=name.partition("/")[0]):
        pretrain(**SHORT, root=binned_root, run_dir=tmp_path)
    assert (tmp_path / name).read_text() == "mine: 1"


@pytest.mark.parametrize(
    ("job", "settings"),
    [
        (pretrain, SHORT | {"root": "r"}),
        (score, {"root": "r"}),
        (reconstruct, {"root": "r", "embeddings": "e", "images": "i"}),
    ],
)
def test_a_second_run_in_a_folder_is_refused_by_name(job, settings, tmp_path):
    code = (
        "import sys, pathlib\n"
        "from neurobridge_tb.engine.run_lock import lock_run\n"
        "lock_run(pathlib.Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"no other run in .*run[\\s\\S]*process {first.pid} on"):
        job(**settings, run_dir=tmp_path / "run")
    first.communicate()
    with pytest.raises(InputError, match="in r"):  # there are no recordings
        job(**settings, run_dir=tmp_path / "run")


@pytest.mark.parametrize("setting", [{"devices": "two"}, {"devices": 0}, {"devices": -1}, {"strategy": "quantum"}])
def test_what_lightning_refuses_is_an_error_with_words(setting, binned_root, tmp_path):
    config = settle(PretrainConfig, None, {**SHORT, **setting, "root": binned_root, "run_dir": tmp_path})
    with pytest.raises(InputError, match=r"settings that lightning\.Trainer takes"):
        RunFolder(config).trainer(config.trainer, [], monitor="val/loss")
    with pytest.raises(InputError, match=r"settings that lightning\.Trainer takes"):
        RunFolder(config).processes(config.trainer)


def test_what_lightning_refuses_in_a_training_is_an_error_in_words(binned_root, tmp_path):
    with pytest.raises(InputError, match=r"lightning\.Trainer takes[\s\S]*limit_train_batches"):
        pretrain(**SHORT | {"limit_train_batches": 1e-4}, root=binned_root, run_dir=tmp_path)


def test_a_run_has_a_folder(binned_root):
    with pytest.raises(InputError, match="an empty run_dir"):
        settle(PretrainConfig, None, {**SHORT, "root": binned_root, "run_dir": ""})


def test_a_training_without_an_end_is_refused(binned_root, tmp_path):
    config = settle(PretrainConfig, None, {**SHORT, "max_epochs": -1, "root": binned_root, "run_dir": tmp_path})
    with pytest.raises(InputError, match=r"max_epochs=-1 and trainer\.max_steps=-1"):
        RunFolder(config).trainer(config.trainer, [], monitor="val/loss")


def test_a_process_that_would_write_nothing_is_refused(binned_root, tmp_path, monkeypatch):
    config = settle(PretrainConfig, None, {**SHORT, "root": binned_root, "run_dir": tmp_path})
    monkeypatch.setenv("RANK", "captain")  # not a launcher's
    RunFolder(config).trainer(config.trainer, [], monitor="val/loss")
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(InputError, match=r"SLURM_PROCID[\s\S]*srun -n 1"):
        RunFolder(config).trainer(config.trainer, [], monitor="val/loss")


def test_a_run_goes_on_where_it_was_moved_and_keeps_its_best_epoch(finished, binned_root, tmp_path, monkeypatch):
    moved, data = shutil.copytree(finished, tmp_path / "moved"), shutil.copytree(binned_root, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    best = RunFolder(settle(PretrainConfig, None, {**SHORT, "root": data, "run_dir": moved})).best_score()

    def worse(module):
        module.log("val/loss", best + 1.0)

    monkeypatch.setattr(PretrainingModule, "on_validation_epoch_end", worse)
    again = RunFolder(settle(PretrainConfig, None, {**SHORT, "root": "data", "run_dir": "moved"}))
    pretrain(**SHORT | {"max_epochs": 3}, root="data", run_dir="moved")
    assert len(pd.read_csv(moved / "metrics.csv")["train/loss"].dropna()) == 3
    assert again.best_score() == best


@pytest.mark.parametrize("change", ["another value", "another recording"])
def test_a_run_goes_on_with_the_very_recordings_that_it_began_with(change, finished, binned_root, tmp_path):
    run, data = shutil.copytree(finished, tmp_path / "run"), shutil.copytree(binned_root, tmp_path / "data")
    if change == "another value":
        with h5py.File(data / "session0.h5", "r+") as file:
            file["spike_counts/value"][:] = file["spike_counts/value"][:][::-1]
    else:
        (data / "session1.h5").unlink()
    with pytest.raises(InputError, match=r"recordings \(of other contents\)"):
        pretrain(**SHORT | {"max_epochs": 3}, root=data, run_dir=run)


def test_a_line_of_the_log_that_is_damaged_is_left_out(finished, binned_root, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (log,) = run.glob("logs/*/metrics.csv")
    log.write_text("epoch,step\n1,ab\0c\n")
    pretrain(**SHORT | {"max_epochs": 3}, root=binned_root, run_dir=run)
    assert len(pd.read_csv(run / "metrics.csv")["train/loss"].dropna()) == 1


def test_a_run_of_another_version_is_refused_in_words(finished, binned_root, tmp_path):
    old = shutil.copytree(finished, tmp_path / "old")
    last = old / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["optimizer_states"][0]["param_groups"][0]["params"].pop()
    SafeCheckpointIO().save_checkpoint(checkpoint, last)
    with pytest.raises(InputError, match="this version of neurobridge-tb began"):
        pretrain(**SHORT | {"max_epochs": 3}, root=binned_root, run_dir=old)


def test_a_run_whose_checkpoints_are_all_damaged_begins_anew_with_all_that_a_beginning_does(
    finished, binned_root, tmp_path
):
    damaged = shutil.copytree(finished, tmp_path / "damaged")
    for path in (damaged / "checkpoints").glob("last.ckpt*"):
        path.write_bytes(path.read_bytes()[:-1000])
    (damaged / "start.json").unlink()
    (damaged / "factors.json").unlink()
    pretrain(**SHORT, root=binned_root, run_dir=damaged)
    for name in ("start.json", "factors.json"):
        assert (damaged / name).read_text() == (finished / name).read_text()
    losses = [pd.read_csv(run / "metrics.csv")["val/loss"].dropna().to_numpy() for run in (damaged, finished)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-99])])
def test_without_its_best_checkpoint_a_run_exports_nothing_in_its_place(damage, finished, binned_root, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    damage(run / "checkpoints" / "best.ckpt")
    with pytest.raises(InputError, match=r"checkpoint of the best epoch[\s\S]*train anew"):
        pretrain(**SHORT, root=binned_root, run_dir=run)


def test_a_training_that_stops_within_an_epoch_is_validated_and_exported_as_it_is_then(binned_root, tmp_path):
    run = pretrain(
        **SHORT | {"max_epochs": 5, "max_steps": 2, "batch_size": 8}, lr=0.01, root=binned_root, run_dir=tmp_path
    )
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics.dropna(subset="val/loss")["step"].tolist()[-1] == 1  # the second step
    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 2


def test_logs_that_were_copied_or_removed_by_hand_are_no_starts(finished, binned_root, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(run / "logs" / "version_0", run / "logs" / "version_0 copy")
    (run / "logs" / "version_0").rename(run / "logs" / "version_4")
    pretrain(**SHORT | {"max_epochs": 3}, root=binned_root, run_dir=run)
    assert (run / "logs" / "version_5" / "metrics.csv").exists()
    assert len(pd.read_csv(run / "metrics.csv")["train/loss"].dropna()) == 3


def test_other_settings_are_refused_where_only_the_checkpoint_before_is_left(finished, binned_root, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "checkpoints" / "last.ckpt").unlink()  # killed between two renames
    with pytest.raises(InputError, match=r"seed \(0, now 1\)"):
        pretrain(**SHORT, seed=1, root=binned_root, run_dir=run)


def test_other_settings_and_another_source_are_refused(finished, binned_root, tmp_path):
    config = settle(PretrainConfig, None, {**SHORT, "root": binned_root, "run_dir": finished})
    assert Settings(config).differences(finished) == []
    assert Settings(replace(config, seed=1)).differences(finished) == ["seed (0, now 1)"]
    (tmp_path / "a.ckpt").write_bytes(b"one")
    started = replace(config, warm_start=str(tmp_path / "a.ckpt"))
    assert Settings(started).differences(finished) == ["warm_start (of other contents)"]  # it began without one
    Settings(started).save(tmp_path)
    (tmp_path / "a.ckpt").rename(tmp_path / "b.ckpt")
    moved = replace(config, warm_start=str(tmp_path / "b.ckpt"))
    assert Settings(moved).differences(tmp_path) == []
    (tmp_path / "b.ckpt").write_bytes(b"another")
    assert Settings(moved).differences(tmp_path) == ["warm_start (of other contents)"]


def test_a_log_has_lines_and_no_warning_that_is_not_about_the_run(binned_root, tmp_path, capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pretrain(**SHORT, root=binned_root, run_dir=tmp_path)
    assert [str(w.message) for w in caught if "lightning" in w.filename] == []
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert lines and "epoch 2/2, step" in lines[-1] and "train/loss" in lines[-1] and "left" in lines[-1]
