"""Image ids bound to files: which are found, missing or doubled; archives named; nothing outside of the folder."""

import io
import json
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from neurobridge_tb._upstream import Interval
from neurobridge_tb.cli.main import main
from neurobridge_tb.datasets import StimulusImages, build_recording, save_recording
from neurobridge_tb.datasets.image_binding import bind_images, find_images, held_out_images, recorded_image_ids
from neurobridge_tb.errors import InputError

THINGS = ["aardvark/aardvark_01b.jpg", "zebra/zebra_02s.jpg"]


def save(folder, *names):
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (50 * k, 0, 0)).save(folder / name)
    return folder


def record(path, image_ids, column="presentations", **more):
    n = len(image_ids)
    data = build_recording(
        brainset_id="lab", session_id=path.stem, subject_id="m", units={"id": ["u"]}, mua=(np.zeros((n, 1)), 1.0)
    )
    starts = np.arange(n, dtype=float)
    shown = Interval(start=starts, end=starts + 0.5, image_id=np.array(image_ids), timekeys=["start", "end"], **more)
    setattr(data, column, shown)
    save_recording(data, path)
    return path


def test_ids_that_are_paths(tmp_path):
    binding = bind_images(save(tmp_path, *THINGS), [THINGS[1], *THINGS])
    assert binding.files == {name: name for name in THINGS} and not binding.missing and not binding.doubled


def test_ids_are_found_in_a_folder_further_down(tmp_path):
    save(tmp_path, *(f"object_images/{name}" for name in THINGS))
    assert bind_images(tmp_path, THINGS).files == {name: f"object_images/{name}" for name in THINGS}


def test_an_id_is_no_part_of_a_longer_name(tmp_path):
    save(tmp_path, "aardvark/old_01b.jpg", "scenes/natural_scene_15.tiff")
    assert bind_images(tmp_path, ["01b.jpg", "k/old_01b.jpg", "scene_15", "natural_scene_1"]).files == {}


def test_ids_without_suffix_go_with_any(tmp_path):
    save(tmp_path, *(f"natural_scene_templates/natural_scene_{k}.tiff" for k in range(12)))
    binding = bind_images(tmp_path, [f"natural_scene_{k}" for k in range(13)])
    assert binding.files["natural_scene_1"] == "natural_scene_templates/natural_scene_1.tiff"
    assert len(binding.files) == 12 and binding.missing == ["natural_scene_12"]


def test_doubled_files_are_listed_unless_one_is_the_id_itself(tmp_path):
    save(tmp_path, "a/x.jpg", "b/x.jpg", "y.png", "y.tiff", "c/d.jpg", "thumbs/c/d.jpg")
    binding = bind_images(tmp_path, ["x.jpg", "y", "c/d.jpg"])
    assert binding.doubled == {"x.jpg": ["a/x.jpg", "b/x.jpg"], "y": ["y.png", "y.tiff"]}
    assert binding.files == {"c/d.jpg": "c/d.jpg"}


def test_hidden_files_of_unpacked_archives_are_no_images(tmp_path):
    save(tmp_path, "a/x.jpg", "__MACOSX/a/x.jpg")
    (tmp_path / "a" / "._x.jpg").write_bytes(b"resource fork")
    assert find_images(tmp_path) == ["a/x.jpg"]


def test_a_binding_serves_where_a_folder_does(tmp_path):
    save(tmp_path / "photos", "t/natural_scene_0.png", "t/natural_scene_1.png", "t/unseen.png")
    bind_images(tmp_path / "photos", ["natural_scene_1"]).save(tmp_path / "images.json")
    assert find_images(tmp_path / "images.json") == ["natural_scene_1"]
    stimuli = StimulusImages(tmp_path / "images.json", ["natural_scene_1"])
    assert stimuli.load(["natural_scene_1"])[0, 0].unique().tolist() == [50]
    again = bind_images(tmp_path / "images.json", ["natural_scene_1", "natural_scene_0"])
    assert again.files == {"natural_scene_1": "t/natural_scene_1.png"} and again.missing == ["natural_scene_0"]
    assert again.folder == tmp_path / "photos"
    with pytest.raises(InputError, match="1 of 1 missing: natural_scene_0"):
        StimulusImages(tmp_path / "images.json", ["natural_scene_0"])


@pytest.mark.parametrize(
    "content", ["no json", "[]", '{"files": {"a": "a.jpg"}}', '{"folder": ".", "files": {"a": 1}}']
)
def test_damaged_bindings_are_named(tmp_path, content):
    (tmp_path / "images.json").write_text(content)
    with pytest.raises(InputError, match="images.json"):
        find_images(tmp_path / "images.json")


def test_a_binding_whose_folder_was_moved_says_so(tmp_path):
    bind_images(save(tmp_path / "photos", *THINGS), THINGS).save(tmp_path / "images.json")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no folder at .*photos[\\s\\S]*moved"):
        StimulusImages(tmp_path / "images.json", THINGS)


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "a/../../secret.jpg", "/etc/secret.jpg", "C:\\secret.jpg", "..\\s.jpg"]
)
def test_paths_that_lead_out_are_refused(tmp_path, path):
    save(tmp_path, "secret.jpg", "photos/a.jpg")
    with pytest.raises(InputError, match="below the images folder"):
        bind_images(tmp_path / "photos", [path])
    content = {"folder": str(tmp_path / "photos"), "files": {"a": path}}
    (tmp_path / "images.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="below the images folder"):
        StimulusImages(tmp_path / "images.json", ["a"])


def test_links_may_not_lead_out(tmp_path):
    save(tmp_path, "secret/x.jpg", "photos/real/a.jpg")
    (tmp_path / "photos" / "b.jpg").symlink_to("real/a.jpg")
    (tmp_path / "photos" / "c.jpg").symlink_to("../secret/x.jpg")
    (tmp_path / "photos" / "d").symlink_to(tmp_path / "secret")
    (tmp_path / "link").symlink_to("photos")
    assert StimulusImages(tmp_path / "link", ["b.jpg"]).load(["b.jpg"]).shape == (1, 3, 4, 4)
    for image_id in ("c.jpg", "d/x.jpg"):
        with pytest.raises(InputError, match="a link to .*secret"):
            StimulusImages(tmp_path / "photos", [image_id])
    with pytest.raises(InputError, match="a link to .*secret"):
        bind_images(tmp_path / "photos", ["c.jpg"])
    with pytest.raises(InputError, match="a link to .*secret"):  # and is not passed over
        StimulusImages(tmp_path / "photos", find_images(tmp_path / "photos"))
    (tmp_path / "photos" / "e").symlink_to("real")
    assert find_images(tmp_path / "photos") == ["b.jpg", "c.jpg", "d/x.jpg", "e/a.jpg", "real/a.jpg"]


def encrypted_zip(path):
    """A zip file whose only member says that it is encrypted, as the standard library cannot make one."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(THINGS[0], b"cipher text")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # local header's flags
    content[content.index(b"PK\x01\x02") + 8] |= 1  # central directory's flags
    path.write_bytes(content)


def test_an_encrypted_archive_is_named_with_what_to_do(tmp_path):
    encrypted_zip(tmp_path / "object_images_A-C.zip")
    for images in (tmp_path, tmp_path / "object_images_A-C.zip"):
        with pytest.raises(InputError, match="object_images_A-C.zip first[\\s\\S]*encrypted[\\s\\S]*osf.io/jum2f"):
            bind_images(images, THINGS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["object_images_A-C.zip"]


def test_an_archive_that_is_not_encrypted_only_needs_unpacking(tmp_path):
    with zipfile.ZipFile(tmp_path / "scenes.zip", "w") as archive:
        archive.writestr("natural_scene_0.tiff", b"")
    with pytest.raises(InputError, match="Unpack scenes.zip first") as error:
        find_images(tmp_path / "scenes.zip")
    assert "encrypted" not in str(error.value)


def test_archives_whose_members_lead_out_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../evil.jpg", b"")
    with pytest.raises(InputError, match=r"Do not unpack a.zip: its member '../evil.jpg'"):
        find_images(tmp_path / "a.zip")
    for number, (name, target) in enumerate({"/evil.jpg": "", "d/evil": "../../home", "e": "/home"}.items()):
        path = tmp_path / f"{number}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.REGTYPE, "")
            archive.addfile(member, io.BytesIO())
        with pytest.raises(InputError, match=f"Do not unpack {number}.tar.gz"):
            find_images(path)


def test_ids_of_a_recording_are_each_named_once_without_blanks(tmp_path):
    path = record(tmp_path / "s.h5", ["b.jpg", "", "a.jpg", "b.jpg"])
    assert recorded_image_ids(path) == ["b.jpg", "a.jpg"]
    blank = np.array([False, True, False])
    path = record(tmp_path / "t.h5", ["b.tiff", "blank", "a.tiff"], column="natural_scenes", blank=blank)
    assert recorded_image_ids(path) == ["b.tiff", "a.tiff"]


def test_ids_may_be_numbers_and_a_damaged_recording_is_named(tmp_path):
    path = record(tmp_path / "s.h5", ["3", "5"])
    with h5py.File(path, "r+") as file:
        del file["presentations/image_id"]
        file["presentations/image_id"] = np.array([3, 5])
    assert recorded_image_ids(path) == ["3", "5"]
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match="a recording .HDF5. at"):
        recorded_image_ids(path)


def test_command_binds_what_was_shown(tmp_path):
    folder = save(tmp_path / "things", *(f"object_images/{name}" for name in THINGS))
    path, out = record(tmp_path / "s.h5", THINGS), tmp_path / "images.json"
    result = CliRunner().invoke(main, ["images", str(folder), str(path), "--out", str(out)])
    assert result.exit_code == 0 and "2 of 2 image ids" in result.output
    assert StimulusImages(out, THINGS).load(THINGS).shape == (2, 3, 4, 4)


def test_command_lists_what_is_missing_or_doubled_and_writes_nothing(tmp_path):
    folder = save(tmp_path / "things", "a/x.jpg", "b/x.jpg")
    path, out = record(tmp_path / "s.h5", ["x.jpg", *(f"m{k:02d}.jpg" for k in range(13))]), tmp_path / "images.json"
    result = CliRunner().invoke(main, ["images", str(folder), str(path), "--out", str(out)])
    assert result.exit_code == 1 and not out.exists()
    for text in ("0 of 14 image ids", "13 missing", "m09.jpg", "and 3 more", "1 doubled", "a/x.jpg, b/x.jpg"):
        assert text in result.output
    assert "m10.jpg" not in result.output


def test_recordings_without_images_are_refused(tmp_path):
    data = build_recording(
        brainset_id="b", session_id="s", subject_id="m", units={"id": ["u"]}, counts=(np.ones((9, 1), int), 0.1)
    )
    save_recording(data, tmp_path / "s.h5")
    with pytest.raises(InputError, match="a column image_id"):
        recorded_image_ids(tmp_path / "s.h5")
    with pytest.raises(InputError, match="a recording"):
        recorded_image_ids(tmp_path / "none.h5")


def split(path, first_of_test):
    """The presentations of :func:`record` from ``first_of_test`` on are the test."""
    with h5py.File(path, "r+") as file:
        n = len(file["presentations/start"])
        group = file.create_group("test_domain")
        group["start"], group["end"] = [float(first_of_test)], [float(n)]
    return path


def test_test_images_are_found_also_in_a_folder_further_down(tmp_path):
    images = save(
        tmp_path / "images", *(f"object_images/{name}" for name in THINGS), "object_images/aardvark/other.jpg"
    )
    recording = split(record(tmp_path / "r.h5", [THINGS[0], THINGS[1], THINGS[1]]), 1)
    assert held_out_images(images, recording) == {f"object_images/{THINGS[1]}"}


def test_test_images_of_all_recordings_of_a_folder_are_found(tmp_path):
    images = save(tmp_path / "images", *THINGS)
    (tmp_path / "processed").mkdir()
    with pytest.raises(InputError, match="recordings"):
        held_out_images(images, tmp_path / "processed")
    split(record(tmp_path / "processed" / "a.h5", [THINGS[0], THINGS[1], THINGS[1]]), 1)
    split(record(tmp_path / "processed" / "b.h5", [THINGS[1], THINGS[0], THINGS[0]]), 1)
    assert held_out_images(images, tmp_path / "processed") == set(THINGS[:2])


def test_a_test_image_that_is_not_found_is_an_error(tmp_path):
    images = save(tmp_path / "images", THINGS[0])
    recording = split(record(tmp_path / "r.h5", THINGS), 0)
    with pytest.raises(InputError, match=f"for 1: {THINGS[1]}"):
        held_out_images(images, recording)
    with pytest.raises(InputError, match="within the test_domain"):
        held_out_images(images, record(tmp_path / "s.h5", THINGS))


def test_a_test_split_without_intervals_has_no_images(tmp_path):
    recording = split(record(tmp_path / "r.h5", THINGS), 0)
    with h5py.File(recording, "r+") as file:
        for key in ("start", "end"):
            del file[f"test_domain/{key}"]
            file[f"test_domain/{key}"] = np.empty(0)
    with pytest.raises(InputError, match="within the test_domain"):
        held_out_images(save(tmp_path / "images", *THINGS), recording)
