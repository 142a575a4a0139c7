"""Allen's NWB files over HTTP from a server on this machine: resumed, retried, and never half a file."""

import pytest
from allen_raw import BRAINSET, pipeline_functions, run_pipeline, simulate
from pipeline_tools import serving
from test_tvsd_download import Server, write_part
from torch_brain.pipeline import runner

NWB = "session_715093703/session_715093703.nwb"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("allen")).read_bytes()


@pytest.fixture
def server(content, monkeypatch):
    """Serves the session below /cache."""
    server = Server()
    server.files[f"/cache/{NWB}"] = content
    with serving(server):
        yield server


@pytest.fixture
def functions(monkeypatch):
    functions = pipeline_functions(runner)
    monkeypatch.setitem(functions, "RETRY_WAITS_S", (0, 0, 0))
    return functions


@pytest.fixture
def download(server, tmp_path, functions):
    """Download the session by itself; returns its path."""

    def run():
        path = tmp_path / "raw" / BRAINSET / NWB
        url = f"{server.url}/cache/{NWB}"
        functions["download_file"](url, path, lambda _: None, functions["check_nwb"])
        return path

    return run


@pytest.fixture
def part(tmp_path):
    """Where the part of an earlier run lies."""
    path = tmp_path / "raw" / BRAINSET / f"{NWB}.part"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize("troubles", [[], [0.0], [0.3, 0.5, 0.999], [503, 500, 429]])
def test_the_whole_file_comes_through_cuts_and_server_errors(download, server, content, troubles):
    server.troubles = list(troubles)
    assert download().read_bytes() == content
    assert len(server.asked) == 1 + len(troubles)


@pytest.mark.parametrize("n_bytes", [1, 777, -1])
def test_part_of_an_earlier_run_is_continued_at_any_byte(download, server, content, part, n_bytes):
    write_part(part, content[:n_bytes], content)
    assert download().read_bytes() == content and not part.exists()
    assert server.asked == [(f"/cache/{NWB}", f"bytes={len(content[:n_bytes])}-")]


def test_whole_part_of_an_earlier_run_is_taken(download, content, part):
    write_part(part, content, content)
    assert download().read_bytes() == content


def test_part_that_is_too_long_is_fetched_anew(download, content, part):
    write_part(part, content + b"tail of another file", content)
    assert download().read_bytes() == content


def test_part_of_other_content_is_not_taken_for_the_file(download, content, part):
    write_part(part, b"x" * (len(content) // 2), content)
    with pytest.raises(ValueError, match="not HDF5"):
        download()
    assert not part.exists()
    assert download().read_bytes() == content


def test_server_without_range_sends_from_the_start(download, server, content):
    server.ranges, server.troubles = False, [0.5]
    assert download().read_bytes() == content


def test_giving_up_keeps_the_part_and_says_how_to_go_on(download, server, part):
    server.ranges, server.troubles = False, [0.5] * 20
    with pytest.raises(ValueError, match=r"whole of http.*[\s\S]*tries without progress[\s\S]*goes on from where"):
        download()
    assert part.exists() and len(server.asked) == 4


def test_a_full_disk_names_the_folder(download, functions, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setitem(functions, "fetch", full)
    with pytest.raises(ValueError, match=r"room for session_715093703.nwb in .*[\s\S]*goes on from"):
        download()


def test_unknown_session_names_the_address_at_once(download, server):
    server.files.clear()
    with pytest.raises(ValueError, match=r"a file at http://127.*session_715093703.nwb[\s\S]*404[\s\S]*item's name"):
        download()
    assert len(server.asked) == 1


def test_an_error_page_is_not_kept(download, server, tmp_path):
    server.files[f"/cache/{NWB}"] = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
    with pytest.raises(ValueError, match="not HDF5, beginning with b.<.xml"):
        download()
    assert not [path for path in (tmp_path / "raw").rglob("*") if path.is_file()]


def run(server, tmp_path, *options):
    return run_pipeline(runner, tmp_path, *options, session=715093703, BUCKET=f"{server.url}/cache")


def test_prepare_downloads_what_is_missing_and_only_that(server, tmp_path):
    path = run(server, tmp_path)
    assert path.exists() and [asked for asked, _ in server.asked] == [f"/cache/{NWB}"]
    run(server, tmp_path, "--reprocess")
    assert len(server.asked) == 1
    run(server, tmp_path, "--reprocess", "--redownload")
    assert len(server.asked) == 2


def test_a_finished_session_of_the_list_is_not_downloaded_again(server, tmp_path):
    run(server, tmp_path)
    (tmp_path / "raw" / BRAINSET / NWB).unlink()
    run(server, tmp_path)
    assert len(server.asked) == 1
    run(server, tmp_path, "--download-only", "--redownload")
    assert len(server.asked) == 2 and (tmp_path / "raw" / BRAINSET / NWB).exists()


def test_templates_are_fetched_where_asked_for(server, tmp_path, capsys):
    for k in range(118):
        server.files[f"/cache/natural_scene_templates/natural_scene_{k}.tiff"] = b"II*\0" + bytes([k])
    run(server, tmp_path, "--templates")
    folder = tmp_path / "raw" / BRAINSET / "natural_scene_templates"
    assert (folder / "natural_scene_117.tiff").read_bytes() == b"II*\0u"
    assert len(list(folder.glob("*.tiff"))) == 118 and len(server.asked) == 119
    assert "pictures are not in" not in capsys.readouterr().out


def test_a_template_that_is_no_picture_is_named(server, tmp_path):
    server.files["/cache/natural_scene_templates/natural_scene_0.tiff"] = b"<html>"
    with pytest.raises(ValueError, match=r"a TIFF picture[\s\S]*<html>"):
        run(server, tmp_path, "--templates")
    assert not list((tmp_path / "raw").rglob("*.tiff*.part"))
