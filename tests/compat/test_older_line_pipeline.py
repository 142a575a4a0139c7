"""On the older line the TVSD pipeline runs under ``brainsets.pipeline``, and ``temporaldata`` opens what it writes."""

import os
import runpy
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

pytest.importorskip("torch_brain.registry", reason="torch_brain 0.1 is not installed here (`make compat`)")

import h5py
import numpy as np
from brainsets import runner
from brainsets.pipeline import BrainsetPipeline
from temporaldata import Data

from neurobridge_tb.datasets import Tvsd, is_simulated

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "brainsets_pipelines" / "tvsd" / "pipeline.py"
RAW = runpy.run_path(str(ROOT / "tests" / "pipelines" / "tvsd_raw.py"))
ROWS = [name.replace("\\", "/") for name in RAW["TRAIN"] + RAW["TEST"] * RAW["N_REPEATS"]]


def raw_rows():
    arrays = RAW["response_arrays"]()
    rows = np.concatenate([arrays["train_MUA"], *arrays["test_MUA_reps"]]).astype(np.float32)
    rows[~np.isfinite(rows)] = np.nan
    return rows


@pytest.fixture
def processed(tmp_path, monkeypatch):
    """``--processed-dir`` after upstream's runner has run the pipeline in this process, on tiny raw files."""
    folder = tmp_path / "raw" / "tvsd" / "monkeyF"
    RAW["write_responses"](folder / "THINGS_normMUA.mat", RAW["response_arrays"]())
    RAW["write_image_names"](folder / "_logs" / "things_imgs.mat", {"train": RAW["TRAIN"], "test": RAW["TEST"]})
    (folder.parent / "simulation.json").write_text('{"simulated": true}')
    folders = [f"--raw-dir={tmp_path / 'raw'}", f"--processed-dir={tmp_path / 'processed'}"]
    monkeypatch.setattr("sys.argv", ["runner", str(PIPELINE), *folders, "--single=monkeyF_norm"])
    runner.run()
    return tmp_path / "processed"


def test_it_is_a_pipeline_of_this_line():
    assert issubclass(runner.import_pipeline_cls_from_file(PIPELINE), BrainsetPipeline)


def test_temporaldata_opens_the_file_and_its_values_are_the_raw_rows(processed):
    with h5py.File(processed / "tvsd" / "monkeyF_norm.h5") as file:
        window = Data.from_hdf5(file).slice(0.4 * 3, 0.4 * 4)
        np.testing.assert_array_equal(window.mua.value, raw_rows()[[3]])
        assert window.presentations.image_id.tolist() == [ROWS[3]]
        data = Data.from_hdf5(file)
        np.testing.assert_array_equal(data.mua.value, raw_rows())
        assert data.presentations.image_id.tolist() == ROWS
        assert data.units.id[312] == "F/array05/ch312" and data.units.area[600] == "IT"
        assert data.brainset.origin_version == "simulated"


def test_our_dataset_reads_it(processed):
    dataset = Tvsd(root=processed)
    assert is_simulated(dataset)
    assert dataset.get_unit_ids()[0] == "F/array01/ch000"
    test = dataset.get_sampling_intervals("test")["monkeyF_norm"]
    assert len(test) == len(RAW["TEST"]) * RAW["N_REPEATS"]


def test_the_brainsets_command_lists_it_beside_upstreams_own(tmp_path):
    try:
        distribution("neurobridge-tb")
    except PackageNotFoundError:
        pytest.skip("neurobridge-tb is not installed here, only on the path")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "from brainsets._cli.cli import cli; cli()", "list"]
    listed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert {"- tvsd", "- perich_miller_population_2018"} <= set(listed.splitlines())
