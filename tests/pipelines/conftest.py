"""The TVSD pipeline, loaded and run as upstream's runner does it."""

from pathlib import Path

import pytest
from constants import changed
from torch_brain.pipeline import runner
from tvsd_raw import (
    N_CHANNELS,
    TEST,
    TRAIN,
    mapping,
    response_arrays,
    traces,
    trial_table,
    write_image_names,
    write_mapping,
    write_responses,
    write_trials,
)

PIPELINE = Path(__file__).parents[2] / "brainsets_pipelines" / "tvsd" / "pipeline.py"


@pytest.fixture
def pipeline_module():
    """The pipeline's functions, from a file that is not a module of the package."""
    cls = runner.import_pipeline_cls_from_file(PIPELINE)
    return cls.get_manifest.__globals__


@pytest.fixture
def raw(tmp_path):
    """``<raw-dir>/tvsd`` with monkey F."""
    folder = tmp_path / "raw" / "tvsd"
    write_responses(folder / "monkeyF" / "THINGS_normMUA.mat", response_arrays())
    write_image_names(folder / "monkeyF" / "_logs" / "things_imgs.mat", {"train": TRAIN, "test": TEST})
    return folder


@pytest.fixture(scope="session")
def trials_file(tmp_path_factory):
    """A trial file of 26 presentations on two days."""
    path = tmp_path_factory.mktemp("trials") / "THINGS_MUA_trials.mat"
    table = trial_table()
    write_trials(path, table, traces(table.shape[1]), chunks=(1, 8, N_CHANNELS))
    return path


@pytest.fixture
def raw_trials(raw, trials_file):
    """``<raw-dir>/tvsd`` with monkey F and its trial file, which is a link."""
    write_mapping(raw / "monkeyF" / "_logs" / "1024chns_mapping_20220105.mat", mapping())
    (raw / "monkeyF" / "THINGS_MUA_trials.mat").symlink_to(trials_file)
    return raw


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Run upstream's runner on the pipeline, in this process; returns the folder of the HDF5 files.

    Keywords besides ``item`` are constants of the pipeline.
    """

    def run(*options, item="monkeyF_norm", **constants):
        folders = [f"--raw-dir={tmp_path / 'raw'}", f"--processed-dir={tmp_path / 'processed'}"]
        monkeypatch.setattr("sys.argv", ["runner", str(PIPELINE), *folders, f"--single={item}", *options])
        with changed(runner, **constants):
            runner.run()
        return tmp_path / "processed" / "tvsd"

    return run
