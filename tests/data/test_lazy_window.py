"""Windows that are cut part by part hold what upstream's slice holds; slabs hold what windows hold."""

import numpy as np
import pytest

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb.data.lazy_window import LazyWindow
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.models.recording_grid import read_spans, spans_end_to_end

SIZES = dict(sequence_length=1.0, latent_step=0.25, dim=16, depth=1, dim_head=8)
STARTS = [0.0, 0.3, 1.0, 2.999999999999, 7.05, 18.97, 19.6, -0.4]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    root = tmp_path_factory.mktemp("lazy")
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 20, 3000))
    envelope = rng.normal(size=(400, 5)).astype(np.float32)
    envelope[40:44] = np.nan
    data = build_recording(
        brainset_id="test",
        session_id="one",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(5)], "area": list("AABBB")},
        spikes=(times, rng.integers(0, 5, 3000)),
        counts=(rng.poisson(0.5, (400, 5)).astype(np.uint8), 0.05),
        mua=(envelope, 0.05),
        behavior={"cursor.velocity": (np.arange(0, 20, 0.01), rng.normal(size=(2000, 2)))},
        trials={"start": np.arange(0.0, 20, 2.0), "end": np.arange(1.5, 20, 2.0)},
        splits={"train": ([0.0, 9.03], [7.77, 20.0])},
        simulated=True,
    )
    save_recording(data, root / "one.h5")
    return BinnedRecordings(root=root).get_recording("one")


def arrays(part):
    names = [*part.keys(), *(["timestamps"] if hasattr(part, "timestamps") else [])]
    return {name: np.asarray(getattr(part, name)) for name in names}


@pytest.mark.parametrize("start", STARTS)
def test_a_window_holds_what_upstreams_slice_holds(recording, start):
    sliced, lazy = recording.slice(start, start + 1.0), LazyWindow(recording, start, start + 1.0)
    assert sorted(sliced.keys()) == sorted(lazy.keys())
    assert lazy.absolute_start == sliced.absolute_start and lazy.session.id == sliced.session.id
    for name in ("units", "spikes", "spike_counts", "mua", "cursor", "trials", "domain"):
        theirs, ours = arrays(getattr(sliced, name)), arrays(getattr(lazy, name))
        assert theirs.keys() == ours.keys()
        for key in theirs:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=f"{name}.{key}")
    assert lazy.get_nested_attribute("units.area").tolist() == list("AABBB")
    assert not hasattr(lazy, "nothing")


@pytest.mark.parametrize("modality", ["mua", "spike_counts", "spikes"])
def test_slabs_hold_what_the_windows_hold(recording, modality, monkeypatch):
    monkeypatch.setattr("neurobridge_tb.models.recording_grid._SLAB", 300)  # several slabs
    model = NeuroBridgeModel(modality=modality, bin_size=0.05, **SIZES)
    starts, ends = spans_end_to_end(recording.train_domain, 1.0, most=9, partial=False)
    assert len(starts) == 9 and (ends - starts == 1.0).all()
    windows = [model.grid_values(recording.slice(a, b))[0] for a, b in zip(starts, ends, strict=True)]
    slabs, lengths = zip(*read_spans(model, recording, starts, ends), strict=True)
    assert len(slabs) > 1
    np.testing.assert_array_equal(np.concatenate(slabs), np.concatenate(windows))
    assert np.concatenate(lengths).tolist() == [len(window) for window in windows]


def test_partial_windows_reach_the_ends_of_intervals(recording):
    starts, ends = spans_end_to_end(recording.train_domain, 1.0, most=100, partial=True)
    assert ends.max() == 20.0 and 7.77 in ends and len(starts) == 8 + 11
    starts, ends = spans_end_to_end(recording.train_domain, 1.0, most=100, partial=False)
    assert len(starts) == 7 + 10
