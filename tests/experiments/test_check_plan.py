"""The plan's go/no-go points, told from runs."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from neurobridge_tb.cli.main import main
from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.check_plan import check

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from fabricated import write_all  # noqa: E402


def write_decode(folder, target, latents, random, simulated=False):
    folder.mkdir(parents=True)
    rows = [
        {"decoder": name, "R2": {"value": value, "low": value - 0.05, "high": value + 0.05}}
        for name, value in (("latents", latents), ("latents of random weights", random))
    ]
    content = {"job": "decode", "target": target, "rows": rows, "simulated": simulated}
    (folder / "metrics.json").write_text(json.dumps(content))


def by_point(rows):
    found = {}
    for row in rows:
        found.setdefault(row["point"], []).append(row)
    return found


def test_each_point_holds_does_not_or_has_no_run(tmp_path):
    write_all(tmp_path)
    write_decode(tmp_path / "experiments" / "jobs" / "decode-1", "hand.velocity", 0.8, 0.5)
    write_decode(tmp_path / "runs" / "decode", "hand.velocity", 0.52, 0.5)
    write_decode(tmp_path / "runs" / "decode_place", "trials.place", 0.3, 0.5)
    points = by_point(check(tmp_path))
    (velocity,) = points["velocity decoded better than from random weights"]
    assert (velocity["holds"], velocity["run"], velocity["holds in"]) == ("yes", "decode-1", "1 of 2 runs")
    (probe,) = points["probe better than of random weights"]
    assert probe["holds"] == "no" and "0.300 (0.250-0.350)" in probe["value"]
    pictures = points["pictures above their baselines"]
    assert {row["holds"] for row in pictures} == {"yes"} and all("simulated" in row["measure"] for row in pictures)


def test_simulated_runs_hold_no_point_for_others(tmp_path):
    write_decode(tmp_path / "animal", "hand.velocity", 0.52, 0.5)
    write_decode(tmp_path / "virtual", "hand.velocity", 0.8, 0.5, simulated=True)
    rows = by_point(check(tmp_path))["velocity decoded better than from random weights"]
    assert [(row["measure"], row["holds"]) for row in rows] == [
        ("hand.velocity, R2", "not sure"),
        ("hand.velocity, R2, simulated", "yes"),
    ]


def test_the_best_of_many_runs_is_told_with_how_many_hold(tmp_path):
    for k, value in enumerate((0.4, 0.7, 0.6)):
        write_decode(tmp_path / f"decode_{k}", "hand.velocity", value, 0.5)
    (row,) = by_point(check(tmp_path))["velocity decoded better than from random weights"]
    assert (row["run"], row["holds in"]) == ("decode_1", "2 of 3 runs")


def test_several_targets_of_one_run_are_told_from_their_own_folders(tmp_path):
    write_decode(tmp_path / "decode" / "hand.velocity", "hand.velocity", 0.8, 0.5)
    rows = [{"target": "hand.velocity", "decoder": "latents", "R2": {"value": 0.8}}]
    (tmp_path / "decode" / "metrics.json").write_text(json.dumps({"job": "decode", "rows": rows}))
    (row,) = by_point(check(tmp_path))["velocity decoded better than from random weights"]
    assert row["holds in"] == "1 of 1 runs"


def test_top_5_is_held_against_each_stages_bar(tmp_path):
    run = tmp_path / "evaluate"
    run.mkdir()
    rows = [
        {"model": f"NeuroBridge, {stage}", "trials": "repeat average", "direction": "neural to image",
         "top5": {"value": value, "low": value - 0.04, "high": value + 0.04}}
        for stage, value in (("stage 1", 0.2), ("stage 2", 0.32), ("linear start", 0.9))
    ]  # fmt: skip
    (run / "retrieval.json").write_text(json.dumps({"rows": rows}))
    points = by_point(check(tmp_path))
    assert [row["holds"] for row in points["top-5 after stage 1 above 15 %"]] == ["yes"]
    assert [row["holds"] for row in points["top-5 after stage 2 above 30 %"]] == ["not sure"]
    assert [row["holds"] for row in points["masked loss better than the training mean"]] == ["no run"]


def test_losses_hold_where_they_are_lower_and_bits_where_they_are_above_zero(tmp_path):
    run = tmp_path / "pretrain"
    run.mkdir()
    rows = [
        {"scheme": "neuron", "metric": "masked MSE (z units)", "model": 0.5, "baselines": {"training mean": 1.0}},
        {"scheme": "temporal", "metric": "masked MSE (z units)", "model": 1.1, "baselines": {"training mean": 1.0}},
        {"scheme": "causal", "metric": "bits/spike", "model": 0.1, "baselines": {}},
    ]
    (run / "metrics.json").write_text(json.dumps({"command": "neurobridge pretrain", "rows": rows}))
    found = by_point(check(tmp_path))["masked loss better than the training mean"]
    assert [row["holds"] for row in found] == ["yes", "no", "yes"]


def test_a_workspace_without_runs_is_refused_and_the_command_prints(tmp_path):
    with pytest.raises(InputError, match="finished runs"):
        check(tmp_path)
    write_decode(tmp_path / "decode", "hand.velocity", 0.8, 0.5)
    result = CliRunner().invoke(main, ["check-plan", str(tmp_path)])
    assert result.exit_code == 0 and "velocity" in result.output and "yes" in result.output
