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


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Upstream's runner runs the pipeline in this process, on tiny raw files; returns ``--processed-dir``."""
    folder = tmp_path / "raw" / "tvsd" / "monkeyF"
    RAW["write_responses"](folder / "THINGS_normMUA.mat", RAW["response_arrays"]())
    RAW["write_image_names"](folder / "_logs" / "things_imgs.mat", {"train": RAW["TRAIN"], "test": RAW["TEST"]})
    (folder.parent / "simulation.json").write_text('{"simulated": true}')
    RAW["write_mapping"](folder / "_logs" / "1024chns_mapping_20220105.mat", RAW["mapping"]())

    def run(*options):
        folders = [f"--raw-dir={tmp_path / 'raw'}", f"--processed-dir={tmp_path / 'processed'}"]
        monkeypatch.setattr("sys.argv", ["runner", str(PIPELINE), *folders, *options])
        runner.run()
        return tmp_path / "processed"

    return run


@pytest.fixture
def processed(prepare):
    return prepare("--single=monkeyF_norm")


def test_it_is_a_pipeline_of_this_line():
    assert issubclass(runner.import_pipeline_cls_from_file(PIPELINE), BrainsetPipeline)


def test_temporaldata_opens_the_file_and_its_values_are_the_raw_rows(processed):
    with h5py.File(processed / "tvsd" / "monkeyF_norm.h5") as file:
        window = Data.from_hdf5(file).slice(0.4 * 3, 0.4 * 4)
        np.testing.assert_array_equal(window.mua.value, RAW["response_rows"]()[[3]])
        assert window.presentations.image_id.tolist() == [RAW["response_image_ids"]()[3]]
        data = Data.from_hdf5(file)
        np.testing.assert_array_equal(data.mua.value, RAW["response_rows"]())
        assert data.presentations.image_id.tolist() == RAW["response_image_ids"]()
        assert data.units.id[312] == "F/array05/ch312" and data.units.area[600] == "IT"
        assert data.brainset.origin_version == "simulated"


def test_windows_are_the_new_lines_sample_by_sample(processed):
    RAW["check_norm_windows"](processed)


@pytest.mark.parametrize("chunks", [None, (1, 8, 1024)])
def test_windows_of_trials_are_the_new_lines_sample_by_sample(prepare, tmp_path, chunks):
    table = RAW["trial_table"]()
    values = RAW["traces"](table.shape[1])
    path = tmp_path / "raw" / "tvsd" / "monkeyF" / "THINGS_MUA_trials.mat"
    RAW["write_trials"](path, table, values, chunks=chunks)
    processed = prepare("--single=monkeyF_trials")
    RAW["check_trial_windows"](processed, table, values)
    with h5py.File(processed / "tvsd" / "monkeyF_trials.h5") as file:
        data = Data.from_hdf5(file)
        assert len(data.domain.start) == 2  # days are apart
        assert data.mua.value.shape == (30 * (table.shape[1] + 1), 1024)


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
