"""Each pipeline goes where both upstream lines look for theirs."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_pipeline_is_laid_into_both_places():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    targets = set(config["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].values())
    names = [path.parent.name for path in (ROOT / "brainsets_pipelines").glob("*/pipeline.py")]
    assert "tvsd" in names
    for name in names:
        assert f"torch_brain/pipeline/brainsets-pipelines/{name}" in targets
        assert f"brainsets_pipelines/{name}/pipeline.py" in targets
