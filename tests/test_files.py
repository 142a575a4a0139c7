"""A final name never holds half a file, and nothing is replaced that NeuroBridge did not write."""

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import pytest
import torch

from neurobridge_tb.errors import InputError, remedy
from neurobridge_tb.files import (
    check_folder,
    check_replaceable,
    files_below,
    visible,
    write_aside,
    write_folder,
    write_json,
)


def marked(folder):
    return json.loads((folder / "a.json").read_text())["ours"]


def write(folder, value):
    with write_folder(folder, ["a.json"], is_ours=marked) as part:
        (part / "a.json").write_text(json.dumps({"ours": True, "value": value}))


def test_success_replaces_a_file_and_a_folder(tmp_path):
    write_json(tmp_path / "a.json", [1])
    write_json(tmp_path / "a.json", [2])
    assert json.loads((tmp_path / "a.json").read_text()) == [2]
    for value in (1, 2):
        write(tmp_path / "folder", value)
        assert json.loads((tmp_path / "folder" / "a.json").read_text())["value"] == value
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "folder"]


def test_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), write_aside(tmp_path / "a") as aside:
        aside.write_text("half")
        raise RuntimeError
    write(tmp_path / "folder", "old")
    with pytest.raises(RuntimeError), write_folder(tmp_path / "folder", ["a.json"], is_ours=marked) as part:
        (part / "a.json").write_text("half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old" and "old" in (tmp_path / "folder" / "a.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "folder"]


def test_what_the_disk_did_not_take_replaces_nothing(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", "old")

    def full(handle):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", full)  # network file systems and quotas tell no earlier
    with pytest.raises(OSError, match="quota"):
        write_json(tmp_path / "a.json", "new")
    with pytest.raises(OSError, match="quota"):
        write(tmp_path / "folder", 1)
    assert json.loads((tmp_path / "a.json").read_text()) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_a_file_browser_looked_into_is_still_ours(tmp_path):
    write(tmp_path / "folder", 1)
    (tmp_path / "folder" / ".DS_Store").touch()
    write(tmp_path / "folder", 2)
    assert json.loads((tmp_path / "folder" / "a.json").read_text())["value"] == 2


def test_folders_of_somebody_else_are_refused_and_kept(tmp_path, monkeypatch):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "a.json").write_text("{}")  # the name of one of our files, not our content
    mixed = tmp_path / "mixed"
    write(mixed, 1)
    (mixed / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "unplugged")
    monkeypatch.chdir(tmp_path)
    for folder, message in (
        (tmp_path / "link", "leads nowhere"),
        (thesis, "a.json"),
        (mixed, "notes.txt"),
        (tmp_path, "working directory"),
        (".", "working"),
    ):
        with pytest.raises(InputError, match=message):
            write(folder, 2)
        with pytest.raises(InputError, match=message):
            check_folder(folder, ["a.json"], is_ours=marked)
    assert (thesis / "a.json").read_text() == "{}" and (mixed / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="a folder"), write_aside(thesis) as part:
        part.write_text("x")


def test_a_card_that_somebody_wrote_stays(tmp_path):
    names = ["a.json", "README.md"]
    write(tmp_path / "model", 1)
    (tmp_path / "model" / "README.md").write_text("mine")
    with write_folder(tmp_path / "model", names, is_ours=marked, kept=["README.md"]) as part:
        (part / "a.json").write_text("new")
    assert (tmp_path / "model" / "README.md").read_text() == "mine"
    assert (tmp_path / "model" / "a.json").read_text() == "new"


def test_files_of_another_kind_are_refused(tmp_path):
    def is_list(path):
        return isinstance(json.loads(path.read_text()), list)

    for name, content, fine in (("a", "[1]", True), ("b", "{}", False), ("c", "no json", False)):
        (tmp_path / name).write_text(content)
        if fine:
            check_replaceable(tmp_path / name, is_list, "a list")
        else:
            with pytest.raises(InputError, match="a list, or nothing"):
                check_replaceable(tmp_path / name, is_list, "a list")
    check_replaceable(tmp_path / "new", is_list, "a list")


def test_many_writers_of_one_place_leave_one_of_their_contents(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: write_json(tmp_path / "a.json", [k] * 100), range(40)))
        list(pool.map(lambda k: write(tmp_path / "folder", k), range(40)))
    assert len(set(json.loads((tmp_path / "a.json").read_text()))) == 1
    assert json.loads((tmp_path / "folder" / "a.json").read_text())["value"] in range(40)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "folder"]


def test_parts_of_processes_that_are_gone_are_swept(tmp_path):
    gone, fresh = tmp_path / ".a.json.elsewhere.4000000.aa.part", tmp_path / ".a.json.elsewhere.4000001.aa.part"
    for part in (gone, fresh):
        part.write_text("half")
    os.utime(gone, (time.time() - 90_000,) * 2)
    write_json(tmp_path / "a.json", [])
    assert not gone.exists() and fresh.exists()


def test_a_sound_file_that_cannot_be_opened_is_never_to_be_removed(tmp_path):
    writer = h5py.File(tmp_path / "open.h5", "w")
    writer["x"] = torch.zeros(3)
    writer.flush()
    for number in (errno.EAGAIN, errno.EACCES, errno.EMFILE, errno.ENOLCK):
        advice = remedy(OSError(number, os.strerror(number)), "Remove the file.")
        assert "emove the" not in advice
    marked = OSError("unable to open file (file is already open for write (may use <h5clear file> to clear the flags))")
    assert "h5clear" in remedy(marked, "Remove the file.") and "emove the" not in remedy(marked, "Remove the file.")
    assert remedy(OSError("truncated file"), "Prepare it again.") == "Prepare it again."
    writer.close()


def test_files_are_listed_through_links_and_without_what_is_hidden(tmp_path):
    for name in ("data/a/1.npy", "data/._2.npy", "data/.cache/3.npy", "data/__MACOSX/4.npy", "elsewhere/5.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    data = tmp_path / "data"
    (data / "b").symlink_to(tmp_path / "elsewhere")
    (data / "a" / "round").symlink_to(data)
    (data / "6.npy").symlink_to(tmp_path / "elsewhere" / "5.npy")
    assert [str(path.relative_to(data)) for path in files_below(data)] == ["6.npy", "a/1.npy", "b/5.npy"]
    assert [path.name for path in visible(data, "*.npy", "a/*.npy")] == ["6.npy", "1.npy"]
    assert visible(tmp_path / "nowhere", "*") == []
