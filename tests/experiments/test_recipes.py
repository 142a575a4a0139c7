"""Recipes: what is refused, what is shared, and that those of the package expand."""

import time

import pytest
import yaml

from neurobridge_tb.errors import InputError
from neurobridge_tb.experiments.expansion import expand
from neurobridge_tb.experiments.inputs import Inputs
from neurobridge_tb.experiments.recipe import names_of_recipes, override, read_recipe

RECIPE = """
question: Does the width matter?
settings: {root: "???", epochs: 1}
factors:
  masks: {both: {}, neuron: {pretrain.masking.temporal: 0}}
  units: [4, 8]
seeds: [0, 1]
steps:
  pretrain: {dataset: binned, root: "${root}", model: tiny, seed: "${seed}", trainer.max_epochs: "${epochs}"}
  score: {root: "${root}", pretrained: "${pretrain}/model", held_out: "${units}", seed: "${seed}"}
table: {measures: [scores.NeuroBridge], where: {task: co_smoothing}}
"""


def write(tmp_path, text=RECIPE, name="mine"):
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def expanded(tmp_path, binned_root, text=RECIPE, **arguments):
    recipe = override(read_recipe(write(tmp_path, text)), {"root": str(binned_root), **arguments})
    return expand(recipe, Inputs(tmp_path / "inputs.json"))


def test_a_job_that_cells_have_in_common_is_made_once(tmp_path, binned_root):
    expansion = expanded(tmp_path, binned_root)
    names = [job.name for job in expansion.jobs.values()]
    assert len(expansion.cells) == 2 * 2 * 2
    assert (names.count("pretrain"), names.count("score")) == (4, 8)  # one pretraining serves both numbers of units
    for cell in expansion.cells:
        assert expansion.jobs[cell.jobs["score"]].needs == (cell.jobs["pretrain"],)


def test_the_address_tells_settings_and_contents_but_not_the_manner_or_the_place(tmp_path, binned_root):
    def keys(root=binned_root, **arguments):
        return set(expanded(tmp_path, root, **arguments).jobs)

    import shutil

    first = keys()
    copied = shutil.copytree(binned_root, tmp_path / "copied")
    assert keys(copied) == first
    assert keys(**{"pretrain.trainer.log_every_n_steps": 3}) == first
    assert not keys(epochs=2) & first
    (copied / "session0.h5").write_bytes((copied / "session0.h5").read_bytes() + b"\0")
    assert not keys(copied) & first


def test_a_name_in_full_and_in_short_is_the_same_job(tmp_path, binned_root):
    short = expanded(tmp_path, binned_root)
    full = expanded(tmp_path, binned_root, RECIPE.replace('root: "${root}"', 'dataset.root: "${root}"'))
    assert list(short.jobs) == list(full.jobs)


def test_a_default_that_is_spelled_out_is_the_same_job(tmp_path, binned_root):
    short = expanded(tmp_path, binned_root)
    spelled = RECIPE.replace("pretrain: {dataset: binned,", "pretrain: {dataset: binned, depth: 1, ema: null,")
    assert list(expanded(tmp_path, binned_root, spelled.replace("depth: 1", "optimizer.lr: 0.001")).jobs) == list(
        short.jobs
    )
    assert list(expanded(tmp_path, binned_root, spelled.replace("depth: 1", "model.dim: 64")).jobs) != list(short.jobs)


def test_levels_and_seeds_can_be_chosen(tmp_path, binned_root):
    expansion = expanded(tmp_path, binned_root, masks="neuron", units=[4, 6, 8], seeds=7)
    assert [cell.levels["units"] for cell in expansion.cells] == ["4", "6", "8"]
    assert {cell.seed for cell in expansion.cells} == {7}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("held_out", "hold_out", "Did you mean held_out"),
        ("dataset: binned", "dataset: bined", "Did you mean binned"),
        ("  score:", "  scor:", "a job"),
        ("${units}", "${unit}", "${NAME}"),
        ("model: tiny", "model: tiny, run_dir: here", "an experiment gives each job a folder of its own"),
        ('seed: "${seed}", trainer', 'pretrained: "${score}", trainer', "in a circle"),
        ("epochs: 1}", "epochs: '${epochs}'}", "in a circle"),
        ("model: tiny", "model: tiny, trainer.devices: 2", "jobs of one process"),
        ("factors:", "factor:", "keys of a recipe"),
        ("pretrain.masking.temporal", "pretrain.masking.temporl", "Did you mean masking.temporal"),
        ("pretrain.masking.temporal", "align.masking.temporal", "one of the steps"),
        ('held_out: "${units}"', "held_out: many", "a value that fits held_out"),
        ("seeds: [0, 1]", "seeds: [a]", "seeds"),
        ("units: [4, 8]", "units: 4", "levels of the factor units"),
        ("units: [4, 8]", "units: [0, 8]", "held_out 1 or more"),
        ("  units:", "  epochs:", "epochs for two things"),
        ("  masks:", "  workspace:", "workspace for two things"),
        ("table:", "plot: unit\ntable:", "Did you mean units"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path, binned_root, old, new, message):
    assert old in RECIPE
    with pytest.raises(InputError) as error:
        expanded(tmp_path, binned_root, RECIPE.replace(old, new))
    assert message in str(error.value)


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for root in ("empty", "nowhere"):
        with pytest.raises(InputError, match=root):
            expanded(tmp_path, tmp_path / root)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="Did you mean pretrained"):
        read_recipe("pretraind")
    recipe = read_recipe(write(tmp_path))
    with pytest.raises(InputError, match="Did you mean epochs"):
        override(recipe, {"root": "x", "epoch": 3})
    with pytest.raises(InputError, match="a value for root"):
        override(recipe, {})
    for wrong in (["nouron"], [], None, 5, {"neuron": 1}):
        with pytest.raises(InputError, match="levels of masks"):
            override(recipe, {"root": "x", "masks": wrong})
    with pytest.raises(InputError, match="levels of units"):
        override(recipe, {"root": "x", "units": []})
    for empty in ({"root": None}, {"root": "x", "epochs": None}):
        with pytest.raises(InputError, match="a value for (root|epochs)"):
            override(recipe, empty)
    for seeds in ([], [-1], [0.5], [True], "all"):
        with pytest.raises(InputError, match="seeds"):
            override(recipe, {"root": "x", "seeds": seeds})


@pytest.mark.parametrize("name", names_of_recipes())
def test_the_recipes_of_the_package_expand(name, tmp_path, binned_root):
    (tmp_path / "embeddings.h5").write_bytes(b"")
    recipe = read_recipe(name)
    values = {n: str(binned_root) for n in ("root", "images") if n in recipe.settings}
    values |= {n: str(tmp_path / "embeddings.h5") for n in ("embeddings",) if n in recipe.settings}
    sessions = {"ours": "session0", "others": "session1", "new": "session1", "few": ["session0"], "many": ["session0"]}
    values |= {n: its for n, its in sessions.items() if n in {*recipe.settings, *recipe.factors}}
    expansion = expand(override(recipe, values), Inputs(tmp_path / "inputs.json"))
    assert recipe.question.endswith("?") and len(recipe.seeds) == 3
    assert len(expansion.cells) >= 6 and all(set(cell.jobs) == set(recipe.steps) for cell in expansion.cells)


def test_checksums_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "inputs.json").write_text("{")
    with pytest.raises(InputError, match=r"inputs\.json"):
        Inputs(tmp_path / "inputs.json")


def test_levels_that_the_user_has_to_give_are_asked_for():
    with pytest.raises(InputError, match="a value for new"):
        override(read_recipe("each_session"), {"root": "x"})


def test_many_jobs_share_one_composition(tmp_path, binned_root, monkeypatch):
    from neurobridge_tb.engine import config

    config._base.cache_clear()
    composed = []
    compose = config._compose
    monkeypatch.setattr(config, "_compose", lambda *a: composed.append(a) or compose(*a))
    began = time.monotonic()
    expansion = expanded(tmp_path, binned_root, units=list(range(1, 126)))
    print(f"{len(expansion.jobs)} jobs in {time.monotonic() - began:.2f} s")
    assert len(expansion.jobs) == 4 + 500 and len(composed) == 2
    config._base.cache_clear()


def test_a_recipe_is_a_mapping(tmp_path):
    for text, message in (("- 1", "a mapping"), ("a: [", "YAML"), (yaml.safe_dump({"steps": {}}), "at least one step")):
        with pytest.raises(InputError, match=message):
            read_recipe(write(tmp_path, text))
