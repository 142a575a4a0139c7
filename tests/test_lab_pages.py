"""The pages on files of labs: their commands run, one after the other, on the real files."""

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_docs import ROOT, command_lines

from neurobridge_tb.cli.main import main

SOURCES = {  # what the pages call the files, and where they lie among the recordings
    "sub-4_ses-4.nwb": "lab_files/nwb_human_mtl/sub-4_ses-4.nwb",
    "sorted": "lab_files/phy_neuropixels",
    "raster_it": "lab_files/raster_it",
    "alf": "recordings/ibl_alf",
}
QUICK = {  # the same commands, on less
    "pretrain": ["model=tiny", "model.num_latents_per_step=1", "trainer.limit_train_batches=2", "trainer.max_epochs=1"],
    "forecast": ["forecaster=tiny", "trainer.limit_train_batches=2", "trainer.max_epochs=1"],
    "decode": ["networks=false", "folds=2", "areas=false"],
}
SLOW = ("bins=", "glm_horizons=")  # settings that multiply the work


def quick(arguments: list[str]) -> list[str]:
    """The command without settings that are replaced, and with those of ``QUICK``."""
    job, *given = arguments
    replaced = [setting.partition("=")[0] for setting in QUICK.get(job, ())]
    kept = [a for a in given if a.partition("=")[0] not in replaced and not a.startswith(SLOW)]
    return [job, *kept, *QUICK.get(job, ())]


@pytest.mark.recordings
@pytest.mark.parametrize("page", ["import_nwb", "import_phy", "import_matlab", "import_alf"])
def test_commands_run_on_the_real_files(page, recordings_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, place in SOURCES.items():
        Path(name).symlink_to(recordings_dir / place)
    ran = 0
    for arguments in command_lines(ROOT / "docs" / f"{page}.md", "neurobridge"):
        made = [Path(a.partition("=")[2]) for a in arguments if a.startswith(("root=", "pretrained="))]
        source = arguments[2] if arguments[0] == "import" else None
        if (source is not None and source not in SOURCES) or not all(path.exists() for path in made):
            continue  # of files that are not among the recordings
        result = CliRunner().invoke(main, quick(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        ran += 1
    assert ran >= 1


def test_no_command_is_longer_than_a_line():
    named = ("lab_files", "decoding", "own_data")
    for page in [*(ROOT / "docs").glob("import_*.md"), *(ROOT / "docs" / f"{name}.md" for name in named)]:
        for arguments in command_lines(page, "neurobridge"):
            assert len(shlex.join(["neurobridge", *arguments])) <= 120, (page.name, arguments)
