"""The command: help that teaches, and errors without a traceback."""

import errno
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from neurobridge_tb.cli.main import main
from neurobridge_tb.cli.overview import SECTIONS

entry = importlib.import_module("neurobridge_tb.cli.main")

COMMANDS = [name for name, command in main.commands.items() if not command.hidden]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_the_list_of_commands_is_complete():
    assert sorted(name for section in SECTIONS.values() for name in section) == sorted(COMMANDS)
    output = CliRunner().invoke(main, ["--help"]).output
    assert all(len(re.findall(rf"^  {name} ", output, re.MULTILINE)) == 1 for name in COMMANDS)


def test_the_help_of_a_training_shows_its_groups_and_config():
    output = CliRunner().invoke(main, ["pretrain", "--help"]).output
    assert "dataset: allen, binned" in output
    assert "trainer.max_epochs=50" in output


def test_info_names_versions_and_device():
    output = CliRunner().invoke(main, ["info"]).output
    assert "torch_brain" in output and "device" in output
    installed = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert installed["brainsets"] == installed["temporaldata"] == "in torch_brain"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "dataset=binned"], "a value for dataset.root"),
        (["pretrain", "datset=binned"], "Did you mean dataset?"),
        (["pretrain", "+loggr=wandb"], "Did you mean trainer.logger?"),
        (["embed", "images", "--out", "x.h5"], "settings as NAME=VALUE"),
        (["pretrain", "dataset.root=/nowhere"], "/nowhere"),
        (["embed", "images=/nowhere", "out=x.h5"], "no such folder"),
        (["embed", "images=/nowhere", "out=theirs.txt"], "an embedding cache, or nothing, at theirs.txt"),
        (["pretrain", "dataset.root=/nowhere", "run_dir=."], "the settings of a run, or nothing, at config.yaml"),
        (["pretrain", "dataset.root=~/nowhere"], str(Path.home() / "nowhere")),
        (["validate", "."], "recordings (.h5 files)"),
        (["pretrain", "dataset.root=/nowhere", "seed=-1"], "a seed from 0"),
        (["simulate-ibl", ".", "--seed", "-1"], "x>=0"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, message, tmp_path):
    (tmp_path / "theirs.txt").write_text("kept")
    (tmp_path / "config.yaml").write_text("kept: true")
    result = subprocess.run(
        [sys.executable, "-m", "neurobridge_tb.cli", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "theirs.txt").read_text() == "kept" and (tmp_path / "config.yaml").read_text() == "kept: true"
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".h5", ".ckpt", ".safetensors")]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "'runs/x'\nThe disk is full: free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/root"), "'/root'\nYou may not read it"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/proc/x"), "Check the path, and whether you may write there"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough memory: [enforce"),
        (MemoryError(), "not enough memory: MemoryError"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "shared memory (of a container"),
    ],
)
def test_what_the_system_refuses_is_one_message(error, message, monkeypatch, capsys):
    def refuse():
        raise error

    refuse.commands = {}
    monkeypatch.setattr(entry, "main", refuse)
    with pytest.raises(SystemExit) as ended:
        entry.run()
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def fail():
        raise RuntimeError("shapes do not match")

    fail.commands = {}
    monkeypatch.setattr(entry, "main", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        entry.run()


@pytest.mark.parametrize("redirection", ["", ">&-", "2>&-"], ids=["latin-1", "closed output", "closed errors"])
def test_outputs_that_cannot_take_all_that_is_said_end_nothing(redirection, tmp_path):
    (tmp_path / "job.py").write_text(
        "import sys\n"
        "from neurobridge_tb.cli.main import run\n"
        "from neurobridge_tb.progress import progress_bars, say\n"
        "def describe():\n"
        "    say('looking')\n"
        "    with progress_bars() as show: show('stage', 1, 1)\n"
        "    return {'scores': 'R² 0.5 – 0.6', 'sign': '→'}\n"
        "import neurobridge_tb.cli.environment\n"
        "neurobridge_tb.cli.environment.describe = describe\n"
        "sys.argv = ['neurobridge', 'info']\n"
        "run()\n"
    )
    done = subprocess.run(
        f"exec {sys.executable} {tmp_path}/job.py {redirection}",
        shell=True, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    if redirection != ">&-":
        assert b"looking ?" in done.stdout and "R² 0.5 ? 0.6".encode("latin-1") in done.stdout
