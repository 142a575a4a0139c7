"""``brainsets prepare tvsd``: what is in the HDF5 file is what was in the raw files, and bad raw files are named."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from pipeline_tools import imports_of
from tvsd_raw import (
    N_REPEATS,
    TEST,
    TRAIN,
    check_norm_windows,
    response_arrays,
    write_image_names,
    write_responses,
)

from neurobridge_tb._upstream import Data
from neurobridge_tb.datasets import Tvsd, is_simulated


@pytest.fixture
def dataset(raw, prepare):
    return Tvsd(root=prepare().parent)


def test_each_window_is_the_raw_row_of_its_image(raw, prepare):
    check_norm_windows(prepare().parent)


def test_presentations_name_concept_repeat_and_what_is_unknown(dataset):
    presentations = dataset.get_recording("monkeyF_norm").presentations
    n_train = len(TRAIN)
    assert presentations.concept[:5].tolist() == ["cat"] * 4 + ["dog"]
    np.testing.assert_array_equal(presentations.repeat[n_train:], np.repeat(np.arange(N_REPEATS), len(TEST)))
    np.testing.assert_array_equal(presentations.image_index, [*range(n_train), *[-1] * len(TEST) * N_REPEATS])
    assert (presentations.day == -1).all() and (presentations.position == -1).all()
    np.testing.assert_allclose(presentations.start, 0.4 * np.arange(len(presentations)))
    np.testing.assert_allclose(presentations.end - presentations.start, 0.2)


def test_units_hold_place_and_quality(dataset):
    units = dataset.get_recording("monkeyF_norm").units
    raw = response_arrays()
    assert units.id[312] == "F/array05/ch312" and (units.array[312], units.channel[312]) == (5, 312)
    assert [units.area[c] for c in (0, 511, 512, 831, 832, 1023)] == ["V1", "V1", "IT", "IT", "V4", "V4"]
    np.testing.assert_allclose(units.snr, raw["SNR_max"][:, 0], rtol=1e-6)
    np.testing.assert_allclose(units.reliability, raw["reliab"].mean(0), rtol=1e-6)
    np.testing.assert_allclose(units.latency_ms, np.nanmean(raw["lats"], axis=0), rtol=1e-6)
    assert np.flatnonzero(units.is_dead).tolist() == [*range(64, 128), 200]
    assert dataset.get_unit_ids() == sorted(units.id)


def test_monkey_n_has_its_own_areas(raw, prepare):
    shutil.copytree(raw / "monkeyF", raw / "monkeyN")
    units = Tvsd(prepare(item="monkeyN_norm").parent).get_recording("monkeyN_norm").units
    assert [units.area[c] for c in (511, 512, 767, 768)] == ["V1", "V4", "V4", "IT"]
    assert units.id[0] == "N/array01/ch000"


def valid_images(folder):
    with h5py.File(folder / "monkeyF_norm.h5") as file:
        presentations = Data.from_hdf5(file).presentations
        return set(presentations.image_id[presentations.split == "valid"])


def test_validation_is_a_seeded_share_of_training_images(raw, prepare):
    first = valid_images(prepare(VALID_FRACTION=0.3))
    assert len(first) == 6 and not first & {name.replace("\\", "/") for name in TEST}
    assert first == valid_images(prepare("--reprocess", VALID_FRACTION=0.3))
    assert first != valid_images(prepare("--reprocess", VALID_FRACTION=0.3, SEED=1))


def test_validation_by_concept_takes_whole_concepts(raw, prepare):
    chosen = valid_images(prepare("--valid-by-concept", VALID_FRACTION=0.3))
    concepts = {image_id.split("/")[0] for image_id in chosen}
    assert len(concepts) == 2 and len(chosen) == 8


def test_description_says_simulated_only_where_the_raw_files_are(raw, prepare):
    dataset = Tvsd(prepare().parent)
    assert not is_simulated(dataset)
    assert dataset.get_recording("monkeyF_norm").brainset.source == "https://doi.org/10.12751/g-node.hc7zlv"
    (raw / "simulation.json").write_text('{"simulated": true}')
    dataset = Tvsd(prepare("--reprocess").parent)
    assert is_simulated(dataset)
    assert "simulated" in dataset.get_recording("monkeyF_norm").brainset.description.lower()


def test_manifest_lists_local_monkeys_else_both(raw, pipeline_module):
    pipeline, parse = pipeline_module["Pipeline"], pipeline_module["parser"].parse_args
    assert pipeline.get_manifest(raw, parse([])).index.tolist() == ["monkeyF_norm"]
    assert len(pipeline.get_manifest(raw.parent / "empty", parse([]))) == 2


def without(name):
    return {key: value for key, value in response_arrays().items() if key != name}


def replaced(name, change):
    return response_arrays() | {name: change(response_arrays()[name])}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without("train_MUA"), r"variable 'train_MUA' with shape \(20, 1024\)[\s\S]*Found variables"),
        (without("SNR_max"), r"'SNR_max'"),
        (replaced("train_MUA", np.transpose), r"Found shape \(1024, 20\)"),
        (replaced("train_MUA", lambda a: a[:-1]), r"\(20, 1024\)[\s\S]*Found shape \(19, 1024\)"),
        (replaced("test_MUA_reps", lambda a: a[0]), r"\(repeats, 2, 1024\)"),
        (replaced("reliab", lambda a: a[:0]), r"\(pairs of repeats, 1024\)"),
        (replaced("lats", lambda a: a.astype("S8")), r"of type \|S8"),
    ],
)
def test_wrong_variables_are_named_before_anything_is_read(raw, prepare, arrays, message):
    write_responses(raw / "monkeyF" / "THINGS_normMUA.mat", arrays)
    with pytest.raises(SystemExit, match=message):
        prepare()
    assert not list(raw.parent.parent.glob("processed/**/*.h5"))


def test_truncated_file_is_named(raw, prepare):
    path = raw / "monkeyF" / "THINGS_normMUA.mat"
    path.write_bytes(path.read_bytes()[:100_000])
    told = r"100,000 bytes of a file that is damaged or truncated[\s\S]*Copy the file again"
    with pytest.raises(SystemExit, match=told):
        prepare()


def test_damage_inside_a_file_is_named(raw, prepare, pipeline_module):
    path = raw / "monkeyF" / "THINGS_normMUA.mat"
    with h5py.File(path, "r+") as file:
        values = file["lats"][...]
        del file["lats"]
        chunk = file.create_dataset("lats", data=values, compression="gzip", chunks=(4, 1024)).id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(512 + chunk.byte_offset)
        file.write(b"\0" * 64)
    with pytest.raises(ValueError, match="a damaged file"):
        prepare()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "not HDF5, beginning with b'<!DOCTYPE html>"),
        (b"/annex/objects/MD5-s1--abc\n", "pointer to the content"),
        (b"", "0 bytes that are not HDF5"),
    ],
)
def test_what_is_no_mat_file_is_named(raw, prepare, content, message):
    (raw / "monkeyF" / "THINGS_normMUA.mat").write_bytes(content)
    with pytest.raises(SystemExit, match=message):
        prepare()


def test_matlab_v5_is_named(raw, prepare):
    scipy.io.savemat(raw / "monkeyF" / "THINGS_normMUA.mat", {"train_MUA": np.zeros((20, 4))})
    with pytest.raises(SystemExit, match=r"v7\.3[\s\S]*a MATLAB v5 file[\s\S]*-v7\.3"):
        prepare()


@pytest.mark.parametrize("name", ["..\\..\\x.jpg", "/etc/x.jpg", "C:\\x\\y.jpg", "lone.jpg", "größe\\x.jpg", ""])
def test_image_names_that_lead_elsewhere_are_refused(raw, prepare, name):
    names = {"train": [name, *TRAIN[1:]], "test": TEST}
    if not name:
        names["train"][0] = " "
    write_image_names(raw / "monkeyF" / "_logs" / "things_imgs.mat", names)
    with pytest.raises(ValueError, match="Expected image names like"):
        prepare()


def test_pipeline_needs_neither_this_package_nor_torch(pipeline_module):
    imports = imports_of(Path(pipeline_module["__file__"]))
    assert not imports & {"torch", "neurobridge_tb"}
