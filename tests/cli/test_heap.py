"""The heap of the command is bounded where the C library would let it grow."""

import os
import subprocess
import sys

import pytest

from neurobridge_tb.cli import heap


@pytest.mark.parametrize(
    ("library", "grows"), [("glibc 2.17", True), ("glibc 2.38", True), ("glibc 2.39", False), ("musl 1.2", False)]
)
def test_only_older_glibc_is_restarted(monkeypatch, library, grows):
    started = []
    monkeypatch.setattr(os, "confstr", lambda name: library, raising=False)
    monkeypatch.setattr(os, "execv", lambda *command: started.append(command))
    monkeypatch.setattr(os, "environ", {})
    heap.restart_with_bounded_heap()
    heap.restart_with_bounded_heap()  # the variable that is set now ends it
    assert started == ([(sys.executable, sys.orig_argv)] if grows else [])


def test_a_variable_that_is_set_stays(monkeypatch):
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.17", raising=False)
    monkeypatch.setattr(os, "execv", lambda *command: pytest.fail("started anew"))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    heap.restart_with_bounded_heap()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2"


def test_a_system_without_the_question_is_left_alone(monkeypatch):
    def unknown(name):
        raise ValueError

    monkeypatch.setattr(os, "confstr", unknown, raising=False)
    monkeypatch.setattr(os, "execv", lambda *command: pytest.fail("started anew"))
    monkeypatch.setattr(os, "environ", {})
    heap.restart_with_bounded_heap()
    assert os.environ == {}


def test_the_command_keeps_its_arguments():
    done = subprocess.run(
        [sys.executable, "-m", "neurobridge_tb.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert "version" in done.stdout
