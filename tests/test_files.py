"""A final name never holds half a file."""

import json

import pytest

from neurobridge_tb.files import write_aside, write_json


def test_success_replaces_a_file_and_a_folder(tmp_path):
    write_json(tmp_path / "a.json", [1])
    write_json(tmp_path / "a.json", [2])
    assert json.loads((tmp_path / "a.json").read_text()) == [2]
    for content in ("old", "new"):
        with write_aside(tmp_path / "folder") as aside:
            aside.mkdir()
            (aside / content).touch()
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "folder"]


def test_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), write_aside(tmp_path / "a") as aside:
        aside.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
