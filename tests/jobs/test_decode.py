"""Decoding finds what is in the activity, and no more; the table names the best row, figures are written."""

import json

import numpy as np
import pytest

from neurobridge_tb.cli.main import main
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.starts.factor_start import start_from_factor_analysis
from neurobridge_tb.errors import InputError
from neurobridge_tb.jobs.decode import decode
from neurobridge_tb.models import NeuroBridgeModel

N, UNITS = 60, 8


def save(folder, name="a", seed=0):
    """Two units of area A fire for cats, 0.5 s after the start of a trial, two by strength; those of B tell nothing."""
    rng = np.random.default_rng(seed)
    start = 2.0 * np.arange(N)
    kind = rng.permutation(np.repeat(["cat", "dog"], N // 2))
    strength = rng.uniform(0, 1, N)
    trains = []
    for unit in range(UNITS):
        spikes = [rng.uniform(0, 2 * N, 4 * N)]
        if unit < 2:
            spikes += [s + 0.5 + 0.5 * rng.random(12) for s, k in zip(start, kind, strict=True) if k == "cat"]
        elif unit < 4:
            spikes += [s + 1.0 + 0.5 * rng.random(int(40 * x)) for s, x in zip(start, strength, strict=True)]
        trains.append(np.concatenate(spikes))
    clock = np.arange(0, 2 * N, 0.05)
    level = np.interp(clock, start + 1.25, strength)
    recording = build_recording(
        brainset_id="b",
        session_id=name,
        subject_id="s",
        units={"id": [f"{name}/{k}" for k in range(UNITS)], "area": ["A"] * 4 + ["B"] * 4},
        spikes=trains,
        end=2.0 * N,
        trials={
            "start": start,
            "end": start + 1.5,
            "kind": kind,
            "noise": rng.permutation(kind),
            "strength": strength,
            "place": np.where(np.arange(N) % 3 == 0, "low", "up"),
        },
        behavior={"hand.level": (clock, level[:, None])},
        splits={"train": ([0.0], [80.0]), "valid": ([80.0], [90.0]), "test": ([90.0], [120.0])},
    )
    save_recording(recording, folder / f"{name}.h5")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decode")
    save(folder / "one")
    for seed, name in enumerate("ab"):
        save(folder / "two", name, seed)
    for which in ("one", "two"):
        dataset = BinnedRecordings(folder / which)
        model = NeuroBridgeModel(
            modality="spikes",
            sequence_length=1.0,
            latent_step=0.25,
            num_latents_per_step=2,
            dim=16,
            depth=1,
            num_factors=4,
            bin_size=0.05,
        )
        model.init_vocabs(dataset)
        model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
        start_from_factor_analysis(model, dataset, dataset.get_sampling_intervals("train"))
        model.save_pretrained(folder / f"model_{which}")
    return folder


def run(workspace, out, which="one", **settings):
    own = {
        "root": str(workspace / which),
        "pretrained": str(workspace / f"model_{which}"),
        "folds": 3,
        "networks": False,
    }
    content = json.loads((decode(run_dir=str(out), **own | settings) / "metrics.json").read_text())
    return content, {row["decoder"]: row for row in content["rows"]}


def test_classes_with_time_course_areas_and_figures(workspace, tmp_path):
    content, rows = run(workspace, tmp_path, target="trials.kind", bins=0.5)
    assert content["classes"] == ["cat", "dog"] and content["chance"] == 0.5 and content["examples"] == N
    counts, both = rows["spike counts"], rows["latents, factors and counts"]
    assert counts["accuracy"]["low"] > 0.6 and counts["p"] < 0.01 and counts["AUC"] > 0.8
    assert both["accuracy"]["value"] >= counts["accuracy"]["value"] - 0.1
    assert [row["verdict"] for row in rows.values()].count("best") == 1
    assert any("as training rows chose in 3 fits" in note for note in content["notes"])
    assert np.sum(content["confusion"]["latents, factors and counts"]) == N
    course = [point["value"] for point in content["time course"]["rows"]["spike counts"]]
    assert np.argmax(course) == 1 and course[0] < 0.7 and content["time course"]["times"] == [0.25, 0.75, 1.25]
    assert (
        content["areas"]["A"]["spike counts"]["accuracy"]["low"]
        > content["areas"]["B"]["spike counts"]["accuracy"]["value"]
    )
    made = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert made == [f"{name}.{kind}" for name in ("areas", "confusion", "time_course") for kind in ("png", "svg")]


def test_networks_learn_classes_and_values(workspace, tmp_path):
    settings = {"areas": False, "networks": True, "folds": 2}
    _, rows = run(workspace, tmp_path, target="trials.kind", **settings)
    assert rows["fine-tuned"]["accuracy"]["low"] > 0.5 and rows["GRU"]["accuracy"]["low"] > 0.5
    assert set(rows) == {
        "latents, factors and counts", "spike counts", "latents", "factors", "spike counts in quarters",
        "latents of random weights", "fine-tuned", "GRU",
    }  # fmt: skip
    _, rows = run(workspace, tmp_path, target="trials.strength", **settings)
    assert rows["fine-tuned"]["R2"]["value"] > 0 and rows["GRU"]["R2"]["value"] > 0


def test_what_is_not_there_is_not_decoded(workspace, tmp_path):
    _, rows = run(workspace, tmp_path, target="trials.noise", areas=False)
    for row in rows.values():
        assert row["accuracy"]["low"] <= 0.5 and row["p"] > 0.02  # chance lies in the interval


def test_values_conditions_and_own_splits(workspace, tmp_path):
    content, rows = run(workspace, tmp_path, target="trials.strength", areas=False, folds=0)
    assert content["kind"] == "values" and rows["spike counts"]["R2"]["value"] > 0.5
    content, rows = run(
        workspace, tmp_path, target="trials.kind", areas=False, train_on="place=up", test_on="place=low"
    )
    assert rows["spike counts"]["accuracy"]["value"] > 0.8 and np.sum(content["confusion"]["latents"]) == N // 3


def test_series(workspace, tmp_path):
    content, rows = run(workspace, tmp_path, target="hand.level")
    assert content["kind"] == "series" and set(rows) == {
        "latents",
        "latents of random weights",
        "spike counts, 10 bins",
    }
    assert rows["spike counts, 10 bins"]["R2"]["value"] > 0 and rows["spike counts, 10 bins"]["r"] > 0.2


def test_across_sessions_counts_are_left_out(workspace, tmp_path):
    settings = {"target": "trials.kind", "areas": False}
    content, rows = run(workspace, tmp_path, "two", train_on="recording=a", test_on="recording=b", **settings)
    assert set(rows) == {"latents", "latents of random weights"} and "different units" in " ".join(content["notes"])
    content, rows = run(workspace, tmp_path, "two", **settings)
    assert content["examples"] == 2 * N and rows["spike counts"]["accuracy"]["low"] > 0.6


def test_several_targets_have_a_folder_each_and_one_table(workspace, tmp_path):
    settings = {"target": "kind,hand.level", "areas": False}
    content, _ = run(workspace, tmp_path, **settings)
    assert {row["target"] for row in content["rows"]} == {"trials.kind", "hand.level"}
    assert json.loads((tmp_path / "trials.kind" / "metrics.json").read_text())["chance"] == 0.5
    with pytest.raises(InputError, match="one for each"):
        run(workspace, tmp_path, align="start,start,end", **settings)


def test_probe_says_what_it_is_now():
    assert "decode" in main.commands["probe"].help


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "folds=0"),
        ({"bins": 0.0}, "bins above 0 s"),
        ({"bins": 5.0}, "at most as long as the window, 1.5 s"),
        ({"window": [0.0, 0.5, 1.0]}, "FIRST, LAST"),
        ({"window": [0.0, 0.001]}, "a bin of the encoder's"),
        ({"align": "strength", "window": [0.0, 500.0]}, "within the recordings"),
    ],
)
def test_settings_that_cannot_be_are_refused(workspace, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        run(workspace, tmp_path, target="trials.kind", areas=False, **settings)


def test_errors_come_before_the_model_is_read(workspace, tmp_path):
    with pytest.raises(InputError, match="trials.kind"):
        run(workspace, tmp_path, target="trials.kin", pretrained="nowhere")
