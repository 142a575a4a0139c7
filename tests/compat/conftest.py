"""Recordings for the tests on the older upstream line (torch_brain 0.1), which run by themselves: ``make compat``."""

import numpy as np
import pytest

BIN, SECONDS = 0.05, 10.0


@pytest.fixture(scope="session")
def older_line_root(tmp_path_factory):
    """Folder with two recordings of 10 and 6 units: MUA on a grid, spikes, and the hand's velocity."""
    from neurobridge_tb.datasets import build_recording, save_recording

    root = tmp_path_factory.mktemp("older_line")
    for number, n_units in enumerate((10, 6)):
        rng = np.random.default_rng(number)
        n_bins, n_spikes = round(SECONDS / BIN), 400
        times = np.arange(n_bins) * BIN
        data = build_recording(
            brainset_id="test",
            session_id=f"session{number}",
            subject_id="subject",
            units={"id": [f"s{number}/u{i}" for i in range(n_units)], "area": ["A", "B"] * (n_units // 2)},
            mua=(rng.normal(0, 2, (n_bins, n_units)), BIN),
            spikes=(np.sort(rng.uniform(0, SECONDS, n_spikes)), rng.integers(0, n_units, n_spikes)),
            behavior={"hand_velocity": (times, np.stack([np.sin(times), np.cos(times)], axis=1))},
            splits={"train": ([0.0], [SECONDS])},
            simulated=True,
        )
        save_recording(data, root / f"session{number}.h5")
    return root


@pytest.fixture
def older_line_windows(older_line_root):
    """One second of each recording, ready for POYO+ and CaPOYO too: the MUA serves as calcium traces."""
    from temporaldata import IrregularTimeSeries

    from neurobridge_tb._upstream import DatasetIndex
    from neurobridge_tb.datasets import BinnedRecordings

    dataset = BinnedRecordings(root=older_line_root)
    windows = [dataset[DatasetIndex(recording, 2.0, 3.0)] for recording in dataset.recording_ids]
    for window in windows:
        window.calcium_traces = IrregularTimeSeries(
            timestamps=window.mua.timestamps, df_over_f=window.mua.value, domain=window.domain
        )
        window.config = {"multitask_readout": [{"readout_id": "hand_velocity_2d"}]}
    return windows
