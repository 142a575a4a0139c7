"""The snippets of docs/allen.md run, in its order, in a folder made as its last section says."""

import re
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
from click.testing import CliRunner
from PIL import Image
from torch_brain.pipeline import runner

from neurobridge_tb.cli.main import main

ROOT = Path(__file__).parents[2]
BRAINSET = "allen_visual_coding_neuropixels_2019"
GUIDE = (ROOT / "docs" / "allen.md").read_text(encoding="utf-8")


def last_command(begin: str) -> list[str]:
    """Arguments of the last command in the guide that begins so."""
    lines = [line for line in GUIDE.replace("\\\n", " ").splitlines() if line.startswith(begin)]
    return lines[-1].removeprefix(begin).split()


def test_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate, prepare = last_command("neurobridge simulate-allen"), last_command(f"brainsets prepare {BRAINSET}")
    result = CliRunner().invoke(main, ["simulate-allen", *simulate])
    assert result.exit_code == 0, result.output
    pipeline = ROOT / "brainsets_pipelines" / BRAINSET / "pipeline.py"
    with patch.object(sys, "argv", ["runner", str(pipeline), *prepare]):
        runner.run()
    templates = tmp_path / "raw" / BRAINSET / "natural_scene_templates"
    templates.mkdir()
    for k in range(118):
        Image.fromarray(np.full((92, 117), k, dtype=np.uint8)).save(templates / f"natural_scene_{k}.tiff")

    snippets = re.findall(r"^<!-- not run -->\n```python\n(.*?)^```$", GUIDE, re.M | re.S)
    variables: dict = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/allen.md", "exec"), variables)
    assert len(snippets) == 4
    assert [int(picture.float().mean().round()) for picture in variables["pictures"]] == [
        int(re.sub(r"\D", "", image_id)) for image_id in variables["image_ids"][:4]
    ]
