"""The simulated session of Allen's Neuropixels: the published layout, and units that respond to what is shown."""

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from neurobridge_tb.cli.main import main
from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation import simulate_allen_session

SIZE = {"n_units": 24, "seconds": 240.0, "rate": 6.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return simulate_allen_session(tmp_path_factory.mktemp("allen"), **SIZE)


@pytest.fixture
def file(path):
    with h5py.File(path) as file:
        yield file


def test_columns_have_the_published_names_and_types(file):
    numbers = {
        "units": "id spike_times spike_times_index peak_channel_id amplitude_cutoff presence_ratio isi_violations "
        "firing_rate snr waveform_duration cluster_id local_index",
        "general/extracellular_ephys/electrodes": "id local_index probe_id probe_vertical_position "
        "probe_horizontal_position valid_data",
        "intervals/natural_scenes_presentations": "id start_time stop_time frame stimulus_block",
        "intervals/natural_movie_one_presentations": "start_time stop_time frame",
        "intervals/natural_movie_three_presentations": "start_time stop_time frame",
        "intervals/drifting_gratings_presentations": "start_time stop_time orientation temporal_frequency contrast",
        "intervals/static_gratings_presentations": "start_time stop_time orientation spatial_frequency",
        "intervals/gabors_presentations": "start_time stop_time x_position y_position orientation",
        "intervals/flashes_presentations": "start_time stop_time",
        "intervals/spontaneous_presentations": "start_time stop_time",
        "intervals/invalid_times": "start_time stop_time tags_index",
        "processing/running/running_speed": "data timestamps",
    }
    for group, names in numbers.items():
        assert {name for name in names.split() if file[group][name].dtype.kind in "fiub"} == set(names.split()), group
    for text in (
        "units/quality", "general/extracellular_ephys/electrodes/location", "intervals/flashes_presentations/color",
        "intervals/static_gratings_presentations/phase", "intervals/invalid_times/tags",
    ):  # fmt: skip
        assert h5py.check_string_dtype(file[text].dtype) is not None, text
    assert file["general/stimulus"].asstr()[()] == "brain_observatory_1.1"
    assert "None" in file["general/extracellular_ephys/electrodes/location"].asstr()[:]


def test_pynwb_reads_it(path):
    pynwb = pytest.importorskip("pynwb")
    with pynwb.NWBHDF5IO(str(path), "r", load_namespaces=False) as io:
        nwb = io.read()
        units = nwb.units.to_dataframe()
        assert len(units) == SIZE["n_units"] and len(units.spike_times.iloc[0]) > 10
        assert set(nwb.electrodes["group_name"][:]) == {f"probe{letter}" for letter in "ABCDEF"}
        assert nwb.invalid_times.to_dataframe().tags.iloc[0].tolist() == ["EcephysProbe", "1002", "probeC"]
        assert nwb.intervals["natural_scenes_presentations"].to_dataframe().frame.min() == -1
        assert nwb.processing["running"]["running_speed"].data.shape == (240 * 60,)


def test_it_says_simulated(file):
    assert file["session_description"].asstr()[()].startswith("SIMULATED")


def spike_times(file):
    return np.split(file["units/spike_times"][:], file["units/spike_times_index"][:-1])


def test_spikes_are_sorted_inside_the_session_and_as_many_as_set(file):
    units = spike_times(file)
    assert len(units) == SIZE["n_units"]
    for times in units:
        assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] <= SIZE["seconds"]
    rates = np.array([len(times) for times in units]) / SIZE["seconds"]
    np.testing.assert_allclose(file["units/firing_rate"][:], rates)
    assert rates.mean() == pytest.approx(SIZE["rate"], rel=0.05)


def test_presentations_follow_one_another_inside_the_session(file):
    rows = []
    for name, group in file["intervals"].items():
        if name != "invalid_times":
            rows += list(zip(group["start_time"][:], group["stop_time"][:], strict=True))
    rows.sort()
    assert rows[0][0] >= 0 and rows[-1][1] <= SIZE["seconds"]
    assert all(end <= start + 1e-6 for (_, end), (start, _) in zip(rows, rows[1:], strict=False))


def test_units_answer_to_the_image(tmp_path):
    """Counts differ between images by more than Poisson noise does."""
    with h5py.File(simulate_allen_session(tmp_path, n_units=6, seconds=1500, rate=20)) as file:
        scenes = file["intervals/natural_scenes_presentations"]
        start, frame = scenes["start_time"][:], scenes["frame"][:]
        ratios = []
        for times in spike_times(file):
            counts = np.searchsorted(times, start + 0.3) - np.searchsorted(times, start + 0.05)
            by_image = [counts[frame == k] for k in range(118)]
            within = np.mean([c.var(ddof=1) for c in by_image])
            ratios.append(np.var([c.mean() for c in by_image], ddof=1) * len(by_image[0]) / within)
    assert np.median(ratios) > 2


def test_same_seed_same_session_other_number_another_animal(path, tmp_path):
    again = simulate_allen_session(tmp_path / "again", **SIZE)
    other = simulate_allen_session(tmp_path / "other", session_id=2, **SIZE)
    with h5py.File(path) as a, h5py.File(again) as b, h5py.File(other) as c:
        np.testing.assert_array_equal(a["units/spike_times"][:], b["units/spike_times"][:])
        assert not set(a["units/id"][:]) & set(c["units/id"][:])
        assert len(a["units/spike_times"]) != len(c["units/spike_times"])


def test_a_recorded_session_is_never_replaced(tmp_path):
    recorded = simulate_allen_session(tmp_path, **SIZE)
    with h5py.File(recorded, "r+") as file:
        del file["session_description"]
        file["session_description"] = "Data and metadata for an Ecephys session"
    content = recorded.read_bytes()
    with pytest.raises(InputError, match="not simulated"):
        simulate_allen_session(tmp_path, **SIZE)
    assert recorded.read_bytes() == content
    recorded.write_bytes(b"recorded")
    with pytest.raises(InputError, match="not simulated"):
        simulate_allen_session(tmp_path, **SIZE)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"n_units": 0}, "units of at least"), ({"seconds": 5}, "60"), ({"rate": 0}, "rate")]
)
def test_bad_settings_leave_no_file(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        simulate_allen_session(tmp_path, **SIZE | wrong)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_it(tmp_path):
    result = CliRunner().invoke(main, ["simulate-allen", str(tmp_path), "--units", "6", "--seconds", "60"])
    assert result.exit_code == 0, result.output
    nwb = tmp_path / "raw" / "allen_visual_coding_neuropixels_2019" / "session_1" / "session_1.nwb"
    assert nwb.exists() and str(nwb.name) in result.output.replace("\n", "")
