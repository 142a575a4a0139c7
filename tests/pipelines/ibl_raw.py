"""A tiny session in IBL's ALF layout, and upstream's runner on the pipeline."""

from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
from constants import changed
from pyarrow import parquet

PIPELINE = Path(__file__).parents[2] / "brainsets_pipelines" / "ibl_brain_wide_map_2025" / "pipeline.py"
SESSION = "labA/Subjects/KS_014/2019-12-03/001"
ID = "labA_KS_014_2019-12-03_001"
SECONDS, N_CLUSTERS = 60.0, 8
LABELS = np.array([1, 0, 1, 1 / 3, 1, 2 / 3, 1, np.nan])
UUIDS = (UUID(int=i, version=4) for i in range(10**6))


def probe_files(seed):
    """Contents of a probe's files by name. Clusters 0, 2, 4 and 6 are good, 6 is silent."""
    rng = np.random.default_rng(seed)
    n = 3000
    clusters = rng.choice([0, 1, 2, 3, 4, 5, 7], n).astype(np.uint32)
    return {
        "spikes.times.npy": np.sort(rng.uniform(0.1 * seed, SECONDS - 0.1 * seed, n)),
        "spikes.clusters.npy": clusters,
        "clusters.channels.npy": np.arange(N_CLUSTERS) * 2,
        "clusters.depths.npy": 20.0 * np.arange(N_CLUSTERS),
        "clusters.metrics.pqt": {"cluster_id": np.arange(N_CLUSTERS), "label": LABELS},
        "channels.brainLocationIds_ccf_2017.npy": np.repeat([385, -382, 997, 0], 4),
    }


def session_files():
    """Contents of a session's files by their path below ``alf``."""
    rng = np.random.default_rng(9)
    times = np.concatenate([[0.5], np.sort(rng.uniform(0.5, SECONDS + 3, 4000))])
    starts = np.arange(1.0, SECONDS - 3, 3.0)
    files = {
        "_ibl_wheel.timestamps.npy": times,
        "_ibl_wheel.position.npy": np.sin(times) + 0.2 * np.sin(9 * times),
        "_ibl_trials.table.pqt": {
            "intervals_0": starts,
            "intervals_1": starts + 2.5,
            "stimOn_times": np.concatenate([[np.nan], starts[1:] + 0.3]),
            "choice": np.where(np.arange(len(starts)) % 2, 1, -1),
            "contrastLeft": np.full(len(starts), 0.25),
            "unheard_of": np.zeros(len(starts)),
        },
    }
    for number in range(2):
        folder = f"probe{number:02d}/pykilosort"
        files |= {f"{folder}/{name}": content for name, content in probe_files(number).items()}
    return files


def with_uuid(path):
    stem, _, extension = path.rpartition(".")
    return f"{stem}.{next(UUIDS)}.{extension}"


def write_file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        parquet.write_table(pa.table(content), path)
    else:
        np.save(path, content)


def write_session(raw, files, session=SESSION):
    """Write a session below ``<raw-dir>/ibl_brain_wide_map_2025``; returns its ``alf`` folder."""
    for name, content in files.items():
        write_file(raw / session / "alf" / name, content)
    return raw / session / "alf"


def run_pipeline(root, monkeypatch, *options, item=ID, **constants):
    """Upstream's runner in this process, some constants changed; returns the folder of the HDF5 files."""
    from torch_brain.pipeline import runner

    folders = [f"--raw-dir={root / 'raw'}", f"--processed-dir={root / 'processed'}"]
    monkeypatch.setattr("sys.argv", ["runner", str(PIPELINE), *folders, f"--single={item}", *options])
    with changed(runner, **{"MIN_UNITS": 3} | constants):
        runner.run()
    return root / "processed" / "ibl_brain_wide_map_2025"


def pipeline_globals():
    """The pipeline's functions, from a file that is not a module of the package."""
    from torch_brain.pipeline import runner

    return runner.import_pipeline_cls_from_file(PIPELINE).get_manifest.__globals__
