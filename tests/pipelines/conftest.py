"""The TVSD pipeline, loaded and run as upstream's runner does it."""

from pathlib import Path

import pytest
from torch_brain.pipeline import runner
from tvsd_raw import TEST, TRAIN, response_arrays, write_image_names, write_responses

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


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Run upstream's runner on the pipeline, in this process; returns the folder of the HDF5 files."""

    def run(*options, item="monkeyF_norm"):
        folders = [f"--raw-dir={tmp_path / 'raw'}", f"--processed-dir={tmp_path / 'processed'}"]
        monkeypatch.setattr("sys.argv", ["runner", str(PIPELINE), *folders, f"--single={item}", *options])
        runner.run()
        return tmp_path / "processed" / "tvsd"

    return run
