"""The pipelines have the same downloader, word for word."""

import os
import runpy
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "brainsets_pipelines" / "_shared"


def test_every_pipeline_has_the_downloader_as_it_is_now():
    with_copy = runpy.run_path(str(SHARED / "sync.py"))["with_copy"]
    pipelines = sorted(SHARED.parent.glob("*/pipeline.py"))
    assert len(pipelines) == 3
    for path in pipelines:
        text = path.read_text(encoding="utf-8")
        assert with_copy(text) == text, "run: python brainsets_pipelines/_shared/sync.py"


def test_a_file_takes_its_place_when_it_is_whole_and_on_the_disk(tmp_path, monkeypatch):
    written_aside = runpy.run_path(str(SHARED / "download.py"))["written_aside"]
    path, steps = tmp_path / "x.h5", []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: steps.append("sync") or sync(handle))
    monkeypatch.setattr(os, "replace", lambda a, b: steps.append("rename") or replace(a, b))
    with written_aside(path) as part:
        part.write_text("new")
    assert path.read_text() == "new" and steps == ["sync", "rename"]
    with pytest.raises(ValueError, match="room for x.h5[\\s\\S]*disk is full"):
        with written_aside(path) as part:
            part.write_text("half")
            raise OSError("disk is full")
    assert path.read_text() == "new" and not list(tmp_path.glob("*.part"))
