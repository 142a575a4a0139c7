"""A recording is there whole or not at all: disk full, killed process, two processes, finished items."""

import multiprocessing
import os
import resource
import shutil
import signal

import h5py
import numpy as np
import pytest
from tvsd_raw import N_CHANNELS

from neurobridge_tb.datasets import Tvsd

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses fork, signals and resource limits")
VARIANTS = pytest.mark.parametrize("variant", ["norm", "trials"])


def item_of(variant):
    return {"item": f"monkeyF_{variant}"}


def recordings(folder):
    """Names of all files but locks and logs."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def values(folder, variant):
    return Tvsd(folder.parent, variant=variant).get_recording(f"monkeyF_{variant}").mua.value


def in_child(function, *arguments):
    """Call in a forked process."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


@VARIANTS
def test_disk_full_while_writing_leaves_the_old_file_and_says_what_to_do(raw_trials, prepare, variant):
    folder = prepare(**item_of(variant))
    before = values(folder, variant)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # writing beyond fails, as on a full disk
    try:
        with pytest.raises(ValueError, match=r"room for 0\.0 GB in .*tvsd[\s\S]*writing failed[\s\S]*Free some space"):
            prepare("--reprocess", **item_of(variant))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert recordings(folder) == [f"monkeyF_{variant}.h5"]
    np.testing.assert_array_equal(values(folder, variant), before)
    prepare("--reprocess", **item_of(variant))


@VARIANTS
def test_too_little_room_is_said_before_anything_is_written(raw_trials, prepare, monkeypatch, variant, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match=r"room for .* GB[\s\S]*Found 0.0 GB"):
        prepare(**item_of(variant))
    assert not recordings(tmp_path / "processed")


@VARIANTS
def test_killed_while_writing_is_made_anew_by_the_next_run(
    raw_trials, prepare, pipeline_module, variant, tmp_path, monkeypatch
):
    def killed_run():
        create = h5py.File.create_dataset if variant == "trials" else h5py.Group.create_group

        def die(*arguments, **options):
            create(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(h5py.Group, create.__name__, die)
        prepare(**item_of(variant))

    process = in_child(killed_run)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = tmp_path / "processed" / "tvsd"
    assert recordings(folder) == [f".monkeyF_{variant}.h5.part"]
    prepare(**item_of(variant))
    assert recordings(folder) == [f"monkeyF_{variant}.h5"]
    assert values(folder, variant).shape[1] == N_CHANNELS


@VARIANTS
def test_two_processes_make_one_file(raw_trials, prepare, variant, tmp_path, capfd):
    processes = [in_child(lambda: prepare(**item_of(variant))) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert capfd.readouterr().out.count("Skipped Processing") == 1
    folder = tmp_path / "processed" / "tvsd"
    assert recordings(folder) == [f"monkeyF_{variant}.h5"]
    assert values(folder, variant).shape[1] == N_CHANNELS


@VARIANTS
def test_finished_item_is_kept_unless_reprocess(raw_trials, prepare, variant):
    path = prepare(**item_of(variant)) / f"monkeyF_{variant}.h5"
    made = os.stat(path).st_ino
    prepare(**item_of(variant), SEED=3)
    assert os.stat(path).st_ino == made
    prepare("--reprocess", **item_of(variant), SEED=3)
    assert os.stat(path).st_ino != made


@VARIANTS
def test_a_finished_item_of_other_options_is_not_taken_for_the_one_asked_for(raw_trials, prepare, variant):
    path = prepare(**item_of(variant)) / f"monkeyF_{variant}.h5"
    made = os.stat(path).st_ino
    with pytest.raises(Exception, match=r"min-reliability None \(now 0\.2\)[\s\S]*--reprocess"):
        prepare("--min-reliability", "0.2", **item_of(variant))
    assert os.stat(path).st_ino == made
    prepare("--min-reliability", "0.2", "--reprocess", **item_of(variant))
    prepare("--min-reliability", "0.2", **item_of(variant))
