"""The pipelines have the same downloader, word for word."""

import runpy
from pathlib import Path

SHARED = Path(__file__).parents[2] / "brainsets_pipelines" / "_shared"


def test_every_pipeline_has_the_downloader_as_it_is_now():
    with_copy = runpy.run_path(str(SHARED / "sync.py"))["with_copy"]
    pipelines = sorted(SHARED.parent.glob("*/pipeline.py"))
    assert len(pipelines) == 3
    for path in pipelines:
        text = path.read_text(encoding="utf-8")
        assert with_copy(text) == text, "run: python brainsets_pipelines/_shared/sync.py"
