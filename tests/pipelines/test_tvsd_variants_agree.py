"""On a simulated recording, the norm variant follows from the trials: every row, channel and day is in its place."""

import numpy as np
import pytest

from neurobridge_tb.datasets import Tvsd
from neurobridge_tb.simulation.recording import draw_design, record
from neurobridge_tb.simulation.tvsd_files import (
    WINDOW_MS,
    write_image_list,
    write_mapping,
    write_norm_file,
    write_trials_file,
)
from neurobridge_tb.simulation.ventral_stream import N_CHANNELS, VentralStream


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:Degrees of freedom")
@pytest.mark.parametrize("monkey", ["F", "N"])
def test_normalised_window_means_of_the_trials_are_the_norm_values(tmp_path, prepare, monkey):
    train = [f"c{k // 4}/c{k // 4}_{k % 4}.png" for k in range(24)]
    test = [f"c{k}/c{k}_test.png" for k in range(4)]
    rng = np.random.default_rng(0)
    design = draw_design(len(train), len(test), 4, rng)
    drive = rng.standard_normal((len(train) + len(test), N_CHANNELS), dtype=np.float32)
    recording = record(drive, VentralStream(monkey, 0).electrodes, design, monkey=monkey, noise=1.0, rng=rng)
    mapping = rng.permutation(N_CHANNELS) + 1
    folder = tmp_path / "raw" / "tvsd" / f"monkey{monkey}"
    write_image_list(folder / "_logs" / "things_imgs.mat", train, test)
    write_mapping(folder / "_logs" / "1024chns_mapping_20220105.mat", mapping)
    write_norm_file(folder / "THINGS_normMUA.mat", recording)
    write_trials_file(folder / "THINGS_MUA_trials.mat", recording, mapping, rng=rng)

    prepare(item=f"monkey{monkey}_norm")
    processed = prepare("--bin-size=0.005", item=f"monkey{monkey}_trials").parent
    norm = Tvsd(processed).get_recording(f"monkey{monkey}_norm")
    trials = Tvsd(processed, variant="trials").get_recording(f"monkey{monkey}_trials")
    shown, units = trials.presentations, trials.units
    assert units.is_dead.tolist() == norm.units.is_dead.tolist() == recording.is_dead.tolist()

    day = np.unique(shown.day, return_inverse=True)[1]
    bins = trials.mua.value.reshape(-1, 60, N_CHANNELS)[np.arange(len(day)) + day]
    raw = bins * units.raw_deviation.T[day][:, None] + units.raw_mean.T[day][:, None]
    time = np.arange(-100, 200, 5)
    mean = np.empty((len(day), N_CHANNELS))
    for area, (first, last) in WINDOW_MS.items():
        inside = (time >= first) & (time < last)
        mean[:, units.area == area] = raw[:, inside][:, :, units.area == area].mean(axis=1)
    rows = {
        (image, repeat): k
        for k, (image, repeat) in enumerate(zip(norm.presentations.image_id, norm.presentations.repeat, strict=True))
    }
    live = ~units.is_dead
    for today in range(4):
        is_today = day == today
        tests = mean[is_today & (shown.split == "test")][:, live]
        z = (mean[is_today][:, live] - np.nanmean(tests, 0)) / np.nanstd(tests, 0, ddof=1)
        row = [rows[key] for key in zip(shown.image_id[is_today], shown.repeat[is_today], strict=True)]
        np.testing.assert_allclose(z, norm.mua.value[row][:, live], rtol=2e-3, atol=2e-3)
