"""Every stage of the demo is a command that would start, in both sizes."""

import subprocess
import sys

import pytest

from neurobridge_tb.cli import demo_stages
from neurobridge_tb.cli.demo_stages import run_demo, stages
from neurobridge_tb.cli.jobs import JobCommand
from neurobridge_tb.cli.main import main
from neurobridge_tb.engine.config import compose_config


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("photos", [False, True])
def test_commands_would_start(tmp_path, tiny, photos):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    commands = stages(tmp_path / "ws", tmp_path / "photos" if photos else None, seed=1, tiny=tiny)
    assert ("train-decoder" in commands) == photos
    for program, job, *arguments in commands.values():
        if program == "neurobridge":
            command = main.commands[job]
            if isinstance(command, JobCommand):
                compose_config(job, arguments)
            else:
                command.make_context(job, list(arguments))


def test_tiny_is_smaller_in_every_stage_that_takes_long(tmp_path):
    usual, tiny = (stages(tmp_path, None, seed=0, tiny=tiny) for tiny in (False, True))
    assert {stage for stage in usual if usual[stage] != tiny[stage]} >= {"simulate", "pretrain", "align", "reconstruct"}


def test_a_demo_goes_on_where_it_was_moved_and_whatever_its_log_holds(tmp_path, monkeypatch, capsys):
    run: list[str] = []
    monkeypatch.setattr(demo_stages, "_run", lambda command: run.append(command[1]) or (1.0, 2.0))
    monkeypatch.setattr(demo_stages, "lock_run", lambda folder: None)  # one process holds one until it ends
    run_demo(tmp_path / "a", None, 0)
    every = len(run)
    (tmp_path / "a").rename(tmp_path / "b (1)")
    run_demo(tmp_path / "b (1)", None, 0)
    assert run[every:] == ["report"]
    (tmp_path / "b (1)" / "stages.json").write_text("[{")
    run_demo(tmp_path / "b (1)", None, 0)
    assert len(run) == 2 * every + 1 and "cannot be read" in capsys.readouterr().out


def test_a_demo_that_is_stopped_takes_its_stage_along(monkeypatch):
    started = []

    class Stage(subprocess.Popen):
        def wait(self, timeout=None):
            if self not in started:
                started.append(self)
                raise SystemExit(143)
            return super().wait(timeout)

    monkeypatch.setattr(demo_stages.subprocess, "Popen", Stage)
    monkeypatch.setattr(demo_stages, "_NEUROBRIDGE", [sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(SystemExit):
        demo_stages._run(["neurobridge", "pretrain"])
    assert started[0].poll() is not None


def test_a_stage_that_the_system_ends_is_said_to_be(monkeypatch):
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(demo_stages, "_NEUROBRIDGE", [sys.executable, "-c", killed])
    with pytest.raises(demo_stages.StageError, match=r"align` was ended by SIGKILL.*lack memory"):
        demo_stages._run(["neurobridge", "align"])
