"""Pipelines that installed packages declare as entry points."""

import subprocess
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from torch_brain.pipeline._cli.cli import cli
from torch_brain.pipeline._cli.utils import (
    PIPELINES_PATH,
    find_pipeline_dir,
    get_available_brainsets,
)

OWN = "perich_miller_population_2018"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with a pipeline of its own, and one of a taken name."""
    for name in ("lab_reaching_2025", OWN):
        folder = tmp_path / "lab_pipelines" / "brainsets" / name
        folder.mkdir(parents=True)
        (folder / "pipeline.py").write_text("")
    (tmp_path / "lab_pipelines" / "__init__.py").write_text(
        "raise RuntimeError('imported')"
    )
    metadata = tmp_path / "lab_pipelines-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: lab_pipelines\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[torch_brain.pipelines]\n"
        "lab_reaching_2025 = lab_pipelines.brainsets.lab_reaching_2025\n"
        f"{OWN} = lab_pipelines.brainsets.{OWN}\n"
        "gone_2025 = lab_pipelines.brainsets.gone_2025\n"
        "nowhere_2025 = no_such_package.nowhere_2025\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "lab_pipelines"


def test_declared_pipeline_is_listed_once_and_found(package):
    listed = get_available_brainsets()
    assert listed.count("lab_reaching_2025") == 1
    expected = package / "brainsets" / "lab_reaching_2025"
    assert find_pipeline_dir("lab_reaching_2025") == expected


def test_own_pipeline_wins(package):
    assert get_available_brainsets().count(OWN) == 1
    assert str(find_pipeline_dir(OWN)) == str(PIPELINES_PATH / OWN)


def test_declarations_without_a_pipeline_are_left_out(package):
    assert not {"gone_2025", "nowhere_2025"} & set(get_available_brainsets())


def test_prepare_runs_the_declared_pipeline(package, tmp_path):
    folders = ["--raw-dir", str(tmp_path), "--processed-dir", str(tmp_path)]
    command = ["prepare", "lab_reaching_2025", "--use-active-env", *folders]
    with patch.object(subprocess, "run") as run:
        result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    pipeline = package / "brainsets" / "lab_reaching_2025" / "pipeline.py"
    assert str(pipeline) in run.call_args.args[0]
