"""Checkpoints: the one before is kept, damage is found, a moved folder keeps its best score; one run a folder."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from neurobridge_tb.engine.checkpoint_io import RunCheckpoint, SafeCheckpointIO, find_fault, latest_readable, previous
from neurobridge_tb.engine.run_lock import lock_run
from neurobridge_tb.models import NeuroBridgeModel


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of step 2, and the one of step 1 before it."""
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        SafeCheckpointIO().save_checkpoint({"step": step, "state_dict": {"w": torch.full((50, 50), float(step))}}, path)
    return path


def step_of(path):
    return torch.load(path, weights_only=True)["step"]


def test_the_checkpoint_before_is_kept(saved):
    assert latest_readable(saved) == saved and step_of(saved) == 2
    assert find_fault(previous(saved)) is None and step_of(previous(saved)) == 1
    assert latest_readable(saved.with_name("never.ckpt")) is None


@pytest.mark.parametrize("has_links", [True, False])
def test_a_cut_at_any_moment_of_a_save_leaves_a_checkpoint_under_its_own_name(saved, has_links, monkeypatch):
    replace, step, calls = os.replace, 3, []

    def cut(*names):
        calls.append(names)
        if len(calls) == moment + 1:
            raise KeyboardInterrupt
        replace(*names)

    def refuse(*names):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    for moment in range(3):
        calls.clear()
        monkeypatch.setattr(os, "replace", cut)
        try:
            SafeCheckpointIO().save_checkpoint({"step": step}, saved)
        except KeyboardInterrupt:
            assert saved.exists() or not has_links
            assert step_of(latest_readable(saved)) == step - 1
        monkeypatch.setattr(os, "replace", replace)
        SafeCheckpointIO().save_checkpoint({"step": step}, saved)
        assert (step_of(saved), step_of(previous(saved))) == (step, step if moment == 2 else step - 1)
        step += 1
    assert sorted(path.name for path in saved.parent.iterdir()) == ["last.ckpt", "last.ckpt.previous"]


@pytest.mark.skipif(os.name != "posix", reason="uses resource limits")
def test_on_a_full_disk_the_error_is_the_systems_and_what_was_there_stays(saved, tmp_path):
    import resource

    model = NeuroBridgeModel(modality="spikes", sequence_length=1.0, latent_step=0.5, dim=32, depth=1)
    model.unit_emb.initialize_vocab(["a"])
    model.session_emb.initialize_vocab(["s"])
    folder = model.save_pretrained(tmp_path / "model")
    big = {"step": 3, "w": torch.zeros(200, 200)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # writing beyond fails, as on a full disk
    try:
        for write in (lambda: SafeCheckpointIO().save_checkpoint(big, saved), lambda: model.save_pretrained(folder)):
            with pytest.raises(OSError, match="too large") as caught:
                write()
            assert caught.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert latest_readable(saved) == saved and step_of(saved) == 2
    assert NeuroBridgeModel.load_pretrained(folder).unit_emb.vocab == {"NA": 0, "a": 1}
    assert not list(tmp_path.glob(".*"))


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: flip(content, len(content) // 2),
        lambda content: content[: len(content) // 3],
        lambda content: b"",
        lambda content: b"no archive" * 100,
    ],
    ids=["flipped", "cut", "empty", "other"],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(saved, damage, caplog):
    saved.write_bytes(damage(saved.read_bytes()))
    assert latest_readable(saved) == previous(saved)
    assert str(saved) in caplog.text


def test_a_flipped_byte_of_the_directory_is_found_or_does_no_harm(saved):
    content = saved.read_bytes()
    for at in range(len(content) - 600, len(content), 7):
        saved.write_bytes(flip(content, at))
        assert find_fault(saved) or step_of(saved) == 2


def test_every_flipped_byte_of_the_weights_is_found(saved):
    content = saved.read_bytes()
    weights = content.find(torch.full((50, 50), 2.0).numpy().tobytes())
    for at in range(weights, weights + 10_000, 997):
        saved.write_bytes(flip(content, at))
        assert find_fault(saved)


def test_a_moved_run_keeps_its_best_score(tmp_path):
    old = RunCheckpoint(tmp_path / "old", filename="best", monitor="loss")
    old.best_model_score, old.best_model_path = torch.tensor(0.5), str(tmp_path / "old" / "best.ckpt")
    old.best_k_models = {old.best_model_path: old.best_model_score}
    old.kth_best_model_path, old.kth_value = old.best_model_path, old.best_model_score
    new = RunCheckpoint(tmp_path / "new", filename="best", monitor="loss")
    new.load_state_dict(old.state_dict())
    assert new.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert float(new.kth_value) == 0.5
    assert list(new.best_k_models) == [new.best_model_path] and float(new.best_model_score) == 0.5


def locking(folder, **environment):
    """Another process that locks a folder."""
    code = "from pathlib import Path; from neurobridge_tb.engine.run_lock import lock_run; "
    code += f"lock_run(Path({str(folder)!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)


def test_a_second_run_in_a_folder_is_refused_by_name(tmp_path):
    lock_run(tmp_path)
    lock_run(tmp_path)  # the same process may go on in it
    second = locking(tmp_path)
    assert second.returncode and f"process {os.getpid()}" in second.stderr and "InputError" in second.stderr
    assert locking(tmp_path, RANK="1").returncode == 0  # of one distributed run


@pytest.mark.skipif(os.name != "posix", reason="flock")
@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_where_the_file_system_has_no_locks_a_run_goes_on(tmp_path, number, monkeypatch, capsys):
    import fcntl

    def flock(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock_run(tmp_path)
    if number == errno.ENOLCK:  # without system call, filelock marks the folder by a file
        assert "do not start a second run" in capsys.readouterr().out


def test_a_lock_ends_with_its_process(tmp_path):
    assert locking(tmp_path).returncode == 0
    lock_run(tmp_path)
    assert locking(tmp_path).returncode
