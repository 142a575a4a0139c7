"""Runs the Allen pipeline in this process, as upstream's runner does it."""

import sys
from pathlib import Path
from unittest.mock import patch

from constants import changed

from neurobridge_tb.simulation import simulate_allen_session

BRAINSET = "allen_visual_coding_neuropixels_2019"
PIPELINE = Path(__file__).parents[2] / "brainsets_pipelines" / BRAINSET / "pipeline.py"
SESSION = {"n_units": 40, "seconds": 150.0, "rate": 3.0}


def pipeline_functions(runner):
    """The pipeline's functions, from a file that is not a module of the package."""
    return runner.import_pipeline_cls_from_file(PIPELINE).get_manifest.__globals__


def simulate(workspace, session_id=1):
    """A tiny simulated session; returns the NWB file."""
    return simulate_allen_session(workspace, session_id=session_id, **SESSION)


def run_pipeline(runner, workspace, *options, session=1, **constants):
    """Prepare a session, with some constants of the pipeline changed; returns the path of its HDF5 file."""
    folders = [f"--raw-dir={workspace / 'raw'}", f"--processed-dir={workspace / 'processed'}"]
    arguments = ["runner", str(PIPELINE), *folders, f"--single={session}", *options]
    with patch.object(sys, "argv", arguments), changed(runner, **constants):
        runner.run()
    return workspace / "processed" / BRAINSET / f"{session}.h5"
