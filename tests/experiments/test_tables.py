"""Tables over runs: means, paired differences, verdicts, formats; figures."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from neurobridge_tb.cli.main import main
from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.measured import read_measured, sources_of_folders
from neurobridge_tb.experiments.plot import curves, save_figure
from neurobridge_tb.experiments.recipe import TableSpec
from neurobridge_tb.experiments.table import table_rows, to_csv, to_latex, to_markdown
from neurobridge_tb.metrics.seed_intervals import mean_over_queries, mean_over_seeds
from neurobridge_tb.scoring.queries import Queries

SPEC = TableSpec(compare="run", measures=("top1",), where={"trials": "average"})


def write_run(folder, rng, rate, hard=None, queries=True, n=60):
    """A run whose queries are hits with this rate; ``hard`` moves all runs' queries alike."""
    hits = (rng.random(n) < np.clip(rate - (0 if hard is None else hard), 0, 1)).astype(float)
    row = {"model": "m", "trials": "average", "top1": {"value": hits.mean(), "low": 0.0, "high": 1.0}, "p": 0.1}
    found = Queries()
    row = found.take([row | {"by query": {"top1": hits.tolist()}}], [f"q{k}" for k in range(n)])[0]
    folder.mkdir(parents=True)
    if queries:
        found.save(folder)
    other = row | {"trials": "single"}
    (folder / "retrieval.json").write_text(json.dumps({"rows": [row, other], "dataset": "d", "simulated": True}))
    return hits


def test_intervals_over_seeds_are_students(tmp_path):
    found = mean_over_seeds([1.0, 2.0, 3.0])
    assert found["value"] == 2.0
    np.testing.assert_allclose(found["high"] - 2, 4.302653 / np.sqrt(3), rtol=1e-6)
    assert mean_over_seeds([1.0]) == {"value": 1.0}


def test_intervals_over_queries_cover_both_sources():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=400)
    of_queries = mean_over_queries([shared, shared, shared], same=True)
    width = of_queries["high"] - of_queries["low"]
    np.testing.assert_allclose(width, 2 * 1.96 * shared.std() / np.sqrt(400), rtol=0.1)  # seeds agree: queries alone
    apart = mean_over_queries([shared, shared, shared], same=False)
    assert apart["high"] - apart["low"] < width  # queries of their own average out
    of_seeds = mean_over_queries([shared - 5, shared, shared + 5], same=True)
    assert of_seeds["low"] < -3 and of_seeds["high"] > 3 and abs(of_seeds["value"] - shared.mean()) < 1e-9


def test_a_difference_is_paired_by_seed_and_query(tmp_path):
    rng = np.random.default_rng(1)
    hits = {}
    for seed in range(3):
        hits["a", seed] = write_run(tmp_path / f"a_seed{seed}", rng, 0.5)
        better = np.maximum(hits["a", seed], rng.random(60) < 0.2)
        row = {"model": "m", "trials": "average", "top1": {"value": better.mean()}}
        found = Queries()
        row = found.take([row | {"by query": {"top1": better.tolist()}}], [f"q{k}" for k in range(60)])[0]
        (tmp_path / f"b_seed{seed}").mkdir()
        found.save(tmp_path / f"b_seed{seed}")
        (tmp_path / f"b_seed{seed}" / "retrieval.json").write_text(json.dumps({"rows": [row]}))
        hits["b", seed] = better
    sources = sources_of_folders(sorted(tmp_path.iterdir()))
    a, b = table_rows(read_measured(sources, SPEC), SPEC)
    difference = next(value for name, value in b.items() if name.startswith("top1 less"))
    expected = np.mean([hits["b", s] - hits["a", s] for s in range(3)])
    assert difference["value"] == pytest.approx(expected) and difference["low"] > 0
    assert (a["verdict"], b["verdict"]) == ("apart from the best", "best")
    assert a["top1"]["high"] > b["top1"]["low"]  # what the paired interval tells, the two alone do not
    assert a["seeds"] == b["seeds"] == 3


def test_runs_alike_are_not_apart(tmp_path):
    rng = np.random.default_rng(2)
    for run in "ab":
        for seed in range(3):
            write_run(tmp_path / f"{run}_seed{seed}", rng, 0.5)
    rows = table_rows(read_measured(sources_of_folders(sorted(tmp_path.iterdir())), SPEC), SPEC)
    assert sorted(row["verdict"] for row in rows) == ["best", "not apart from the best"]


def test_without_queries_seeds_tell(tmp_path):
    rng = np.random.default_rng(3)
    for run, rate in (("a", 0.2), ("b", 0.8)):
        for seed in range(3):
            write_run(tmp_path / f"{run}-seed{seed}", rng, rate, queries=False)
    rows = table_rows(read_measured(sources_of_folders(sorted(tmp_path.iterdir())), SPEC), SPEC)
    assert [row["verdict"] for row in rows] == ["apart from the best", "best"]
    lower = TableSpec(compare="run", measures=("top1",), where={"trials": "average"}, lower_is_better=True)
    rows = table_rows(read_measured(sources_of_folders(sorted(tmp_path.iterdir())), lower), lower)
    assert [row["verdict"] for row in rows] == ["best", "apart from the best"]


def test_all_text_columns_stay_apart(tmp_path):
    write_run(tmp_path / "a", np.random.default_rng(4), 0.5)
    rows = table_rows(read_measured(sources_of_folders([tmp_path / "a"]), TableSpec(measures=("top1",))), TableSpec())
    assert [row["trials"] for row in rows] == ["average", "single"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TableSpec(rows="rows by layer"), "rows by layer"),
        (TableSpec(where={"trials": "mean"}), "trials=average"),
        (TableSpec(measures=("top2",)), "a measure among top1, p"),
    ],
)
def test_what_runs_do_not_have_is_named(tmp_path, spec, message):
    write_run(tmp_path / "a", np.random.default_rng(5), 0.5)
    with pytest.raises(InputError, match=message):
        read_measured(sources_of_folders([tmp_path / "a"]), spec)


def test_a_column_that_is_not_there_cannot_be_compared(tmp_path):
    write_run(tmp_path / "a", np.random.default_rng(5), 0.5)
    measured = read_measured(sources_of_folders([tmp_path / "a"]), SPEC)
    with pytest.raises(InputError, match="a column among run"):
        table_rows(measured, TableSpec(compare="masks"))


def test_a_folder_that_is_no_run_or_named_twice_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="none in"):
        read_measured(sources_of_folders([tmp_path / "a"]), SPEC)
    with pytest.raises(InputError, match="twice"):
        sources_of_folders([tmp_path / "a", tmp_path / "a"])


ROWS = [
    {"mask": "units & time_1", "seeds": 3, "R2": {"value": 0.5, "low": 0.25, "high": 0.75}},
    {"mask": "time", "seeds": 3, "R2": {"value": 0.25}, "verdict": "best"},
]


def test_formats_are_read_back():
    import csv
    import io

    lines = to_markdown(ROWS).splitlines()
    assert lines[0] == "| mask | seeds | R2 | R2 value | verdict |" or lines[0].startswith("| mask | seeds | R2")
    assert "0.500 (0.250-0.750)" in lines[2]
    first, second = csv.DictReader(io.StringIO(to_csv(ROWS)))
    assert float(first["R2"]) == 0.5 and float(first["R2 low"]) == 0.25 and second["R2 high"] == ""
    latex = to_latex(ROWS)
    assert r"units \& time\_1 & 3" in latex and latex.count(r"\\") == 3 and latex.count("rule") == 3


def test_curves_stand_at_their_numbers_and_names_side_by_side():
    rows = [
        {"model": model, "share": share, "top1": {"value": value, "low": value - 0.1, "high": value + 0.1}}
        for model, values in (("a", (0.1, 0.2, 0.5)), ("b", (0.2, 0.3, 0.6)))
        for share, value in zip(("0.01", "0.1", "1.0"), values, strict=True)
    ]
    figure = curves(rows, "share", "top1")
    axes = figure.axes[0]
    assert axes.get_xscale() == "log" and len(axes.containers) == 2
    np.testing.assert_allclose(
        np.asarray(axes.containers[0].lines[0].get_xdata(), dtype=float), [0.01, 0.1, 1.0], rtol=0.2
    )
    for row in rows:
        row["share"] = f"share {row['share']}"
    axes = curves(rows, "share", "top1").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["share 0.01", "share 0.1", "share 1.0"]
    with pytest.raises(InputError, match="one of model, share"):
        curves(rows, "shares", "top1")


def test_a_single_level_has_its_curves_side_by_side():
    rows = [{"model": model, "pairs": "100 %", "top1": {"value": value}} for model, value in (("a", 0.1), ("b", 0.2))]
    first, second = curves(rows, "pairs", "top1").axes[0].containers
    assert float(first.lines[0].get_xdata()[0]) < float(second.lines[0].get_xdata()[0])


def test_a_baseline_that_all_levels_share_is_drawn_once_with_chance_and_what_it_is(tmp_path):
    rows = [
        {"weights": weights, "model": model, "pairs": pairs, "top1": {"value": times * base, "low": 0.0, "high": 1.0}}
        for pairs, base in (("10 %", 0.1), ("100 %", 0.2))
        for model, weights, times in (("ours", "a", 3), ("ours", "b", 2), ("ridge", "a", 1), ("ridge", "b", 1))
    ]
    figure = curves(rows, "pairs", "top1", label="top-1, simulated", chance=0.01)
    axes = figure.axes[0]
    assert axes.get_legend_handles_labels()[1] == ["chance", "a, ours", "b, ours", "ridge"]
    assert axes.get_ylabel() == "top-1, simulated (95 % interval)"
    runs = [{"chance": {"top1": 0.01, "top5": 0.05}, "simulated": True}]
    text = save_figure(rows, "pairs", "top1", tmp_path, runs).read_text()
    assert "top-1, simulated" in text and "chance" in text
    text = save_figure(rows, "pairs", "top1", tmp_path, [*runs, {"chance": {"top1": 0.02}}]).read_text()
    assert "chance" not in text  # not one for all


def test_the_command_makes_a_table_of_folders(tmp_path):
    rng = np.random.default_rng(6)
    for run in ("a_seed0", "a_seed1", "b_seed0", "b_seed1"):
        write_run(tmp_path / run, rng, 0.5)
    folders = [str(tmp_path / run) for run in ("a_seed0", "a_seed1", "b_seed0", "b_seed1")]
    options = ["--measure", "top1", "--where", "trials=average"]
    result = CliRunner().invoke(main, ["table", *folders, *options])
    assert result.exit_code == 0 and len(result.output.splitlines()) == 4 and "| 2 |" in result.output
    out = tmp_path / "t.tex"
    CliRunner().invoke(main, ["table", *folders, *options, "--format", "latex", "--out", str(out)])
    assert r"\toprule" in out.read_text()
