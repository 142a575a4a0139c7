"""An experiment from a user's own recipe to its table, its figure and the report; a job that fails; going on."""

import json
import re
import shutil
from pathlib import Path
from threading import Event, Thread

import pytest
from click.testing import CliRunner

from neurobridge_tb.cli.main import main
from neurobridge_tb.experiments import outcome
from neurobridge_tb.experiments.job import Job
from neurobridge_tb.experiments.outcome import outcome_of, starts_of
from neurobridge_tb.experiments.plan import read_plan

GUIDE = Path(__file__).parents[2] / "docs" / "experiments.md"
RECIPE = re.search(r"^```yaml\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, binned_root):
    """The recipe, run; jobs that hide 30 of 16 units fail."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "masks_of_mine.yaml").write_text(RECIPE)
    arguments = ["experiment", str(folder / "masks_of_mine.yaml"), f"root={binned_root}", f"workspace={folder}/runs"]
    return folder, arguments, CliRunner().invoke(main, arguments)


def test_a_recipe_of_ones_own_takes_twenty_lines_at_most():
    assert len(RECIPE.strip().splitlines()) <= 20


def test_the_table_has_what_was_done_and_says_what_was_not_and_why(ran):
    folder, _, result = ran
    assert result.exit_code == 0, result.output
    content = json.loads((folder / "runs" / "masks_of_mine" / "metrics.json").read_text())
    assert content["simulated"] and content["job"] == "experiment"
    rows = [(row["masks"], row["hidden"], row["seeds"]) for row in content["rows"]]
    assert rows == [("unit", "2", 2), ("time", "2", 2)]
    assert sum(row["verdict"] == "best" for row in content["rows"]) == 1
    missing = [note for note in content["notes"] if "has no result" in note]
    assert len(missing) == 4 and all("hidden=30" in note and "Expected" in note for note in missing)
    assert "[12/12]" in result.output and "masks_of_mine" in result.output


def test_each_job_ran_once_and_failed_ones_are_tried_again(ran):
    folder, arguments, _ = ran
    plan = read_plan(folder / "runs" / "masks_of_mine")
    assert {starts_of(plan.jobs / key) for key in plan.expansion.jobs} == {1}
    again = CliRunner().invoke(main, arguments)
    assert "8 of 12 jobs were done before" in again.output
    for key in plan.expansion.jobs:
        ended = outcome_of(plan.jobs / key)
        assert starts_of(plan.jobs / key) == (1 if ended.done else 2)


def test_two_drivers_at_once_run_a_job_once_and_the_second_says_that_it_waits(tmp_path, monkeypatch):
    calls, said, waits = [], [], Event()
    monkeypatch.setattr(outcome, "say", lambda text: said.append(text) or waits.set())
    monkeypatch.setattr(outcome, "_call", lambda *of: calls.append(of) or waits.wait(60))
    drivers = [Thread(target=outcome.run_job, args=(Job("score-1", "score", {}), tmp_path)) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert said == ["Another process runs score-1: waiting for it"]
    assert len(calls) == starts_of(tmp_path / "score-1") == 1 and outcome_of(tmp_path / "score-1").done


def test_the_dry_run_tells_jobs_and_their_time_and_runs_nothing(ran):
    folder, arguments, _ = ran
    plan = folder / "runs" / "masks_of_mine" / "plan.json"
    before = {path: path.read_text() for path in folder.rglob("*.txt")} | {plan: plan.read_text()}
    output = CliRunner().invoke(main, [*arguments, "seeds=[0,1,2]", "--dry-run"]).output
    assert "18 jobs for 12 cells (24 without sharing), 8 done, 10 to run: about" in output
    assert "not measured" not in output
    assert {path: path.read_text() for path in folder.rglob("*.txt")} | {plan: plan.read_text()} == before


def test_a_table_and_a_figure_are_made_of_the_folder_again(ran):
    folder = ran[0] / "runs" / "masks_of_mine"
    result = CliRunner().invoke(main, ["table", str(folder), "--format", "csv"])
    assert result.output.splitlines()[0].startswith("masks,hidden,seeds,scores.NeuroBridge,scores.NeuroBridge low")
    result = CliRunner().invoke(main, ["plot", str(folder), "--measure", "scores.Poisson GLM"])
    assert result.exit_code == 0, result.output
    assert (folder / "figures" / "scores.Poisson_GLM.svg").exists() and list((folder / "figures").glob("*.png"))


def test_the_report_shows_an_experiment_as_one_section(ran, tmp_path):
    out = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", str(ran[0] / "runs"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    page = out.read_text()
    assert "Experiments" in page and "Do masks over units help" in page
    assert "Hidden units, areas and the future" not in page  # no section of the single jobs


def test_a_folder_of_something_else_is_refused(ran, tmp_path, binned_root):
    folder, arguments, _ = ran
    (tmp_path / "masks_of_mine").mkdir()
    (tmp_path / "masks_of_mine" / "notes.txt").write_text("mine")
    result = CliRunner().invoke(main, [*arguments[:3], f"workspace={tmp_path}"])
    assert result.exit_code != 0 and "something else in it" in str(result.exception)
    assert (tmp_path / "masks_of_mine" / "notes.txt").read_text() == "mine"


def test_a_recipe_of_the_same_name_does_not_take_an_experiments_folder(ran, tmp_path):
    folder, arguments, _ = ran
    before = (folder / "runs" / "masks_of_mine" / "plan.json").read_bytes()
    (tmp_path / "masks_of_mine.yaml").write_text(RECIPE)
    result = CliRunner().invoke(main, ["experiment", str(tmp_path / "masks_of_mine.yaml"), *arguments[2:]])
    assert result.exit_code != 0 and "the experiment of another recipe" in str(result.exception)
    assert (folder / "runs" / "masks_of_mine" / "plan.json").read_bytes() == before


def test_a_workspace_that_is_a_file_is_refused(ran, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = CliRunner().invoke(main, [*ran[1][:3], f"workspace={tmp_path}/file"])
    assert "a file, " in str(result.exception) and (tmp_path / "file").read_text() == "mine"


def test_nothing_is_made_of_an_experiment_without_a_finished_run(ran, tmp_path):
    shutil.copytree(ran[0] / "runs" / "masks_of_mine", tmp_path / "masks_of_mine")
    for command in ("table", "plot"):
        result = CliRunner().invoke(main, [command, str(tmp_path / "masks_of_mine")])
        assert "at least one finished run of score" in str(result.exception), command
        assert "not run yet" in str(result.exception)


def test_what_an_older_version_left_is_named(ran, tmp_path):
    folder = shutil.copytree(ran[0] / "runs", tmp_path / "runs")
    plan = read_plan(folder / "masks_of_mine")
    (plan.jobs / next(iter(plan.expansion.jobs)) / "outcome.json").write_text('{"status": "ok"}')
    result = CliRunner().invoke(main, ["table", str(folder / "masks_of_mine")])
    assert "Move the folder away" in str(result.exception)
    for content in (b'{"version": "0.0.1"}', b"\xff\xfe"):
        (folder / "masks_of_mine" / "plan.json").write_bytes(content)
        result = CliRunner().invoke(main, ["table", str(folder / "masks_of_mine")])
        assert "Run `neurobridge experiment` again" in str(result.exception)


def test_many_runs_of_one_job(tmp_path, binned_root):
    arguments = [
        "pretrain", "--multirun", "dataset=binned", f"root={binned_root}", "model=tiny", "num_factors=0",
        "max_epochs=0", "seed=0,1", "masking.temporal=0,1", f"run_dir={tmp_path}/many",
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "many" / "jobs").glob("pretrain-*/model/model.safetensors"))) == 4
    assert "seed=1 masking.temporal=0" in result.output
