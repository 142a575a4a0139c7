"""Every stage of the demo is a command that would start, in both sizes."""

import pytest

from neurobridge_tb.cli.demo_stages import stages
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
