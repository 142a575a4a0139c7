"""TVSD and Allen Neuropixels as brainsets of upstream's: pipeline, Dataset, exports, reference entry and tests."""

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from sources import ROOT, lay_file, lay_test, replace_once

MARK = re.compile(r"# Download \(a copy of .*\n")
OLDER_LINE = re.compile(
    r"^try:  # torch_brain 0\.2\n((?: .*\n|\n)+?)^except ImportError:.*\n(?: .*\n)+",
    re.M,
)


@dataclass
class Brainset:
    """What is ours and what it is called upstream.

    Attributes:
        ours: Its folder in brainsets_pipelines/.
        theirs: Upstream's id, ``{author}_{label}_{year}``.
        dataset: Name of the Dataset class.
        edits: Texts of the pipeline to replace, besides what all have in common.
    """

    ours: str
    theirs: str
    dataset: str
    edits: tuple[tuple[str, str], ...]


TVSD = Brainset(
    ours="tvsd",
    theirs="papale_tvsd_2025",
    dataset="PapaleTVSD2025",
    edits=(
        (
            "    simulation.json                               only beside simulated raw files: they are then called so\n",
            "",
        ),
        ('        simulated = (self.raw_dir / "simulation.json").exists()\n', ""),
        (
            'origin_version="simulated" if simulated else "10.12751/g-node.hc7zlv"',
            'origin_version="10.12751/g-node.hc7zlv"',
        ),
        ('source="simulated raw files" if simulated else SOURCE', "source=SOURCE"),
        (
            '(\n                    "SIMULATED data in the format of TVSD, not a recording: "\n'
            '                    if simulated\n                    else ""\n                )\n                + "multi-unit',
            '"multi-unit',
        ),
        ("/tvsd/", "/papale_tvsd_2025/"),
        ("/tvsd``", "/papale_tvsd_2025``"),
        ('brainset_id = "tvsd"', 'brainset_id = "papale_tvsd_2025"'),
    ),
)
ALLEN = Brainset(
    ours="allen_visual_coding_neuropixels_2019",
    theirs="allen_visual_coding_neuropixels_2019",
    dataset="AllenVisualCodingNeuropixels2019",
    edits=(
        # Upstream writes dates by itself.
        (", serialize_fn_map={datetime.datetime: date_text}", ""),
        ("def date_text(date, **_):\n    return str(date)\n\n\n", ""),
        (
            '        simulated = text_at(file, "session_description").startswith("SIMULATED")\n',
            "",
        ),
        ("self.describe_brainset(simulated)", "self.describe_brainset()"),
        ("def describe_brainset(self, simulated)", "def describe_brainset(self)"),
        (
            'origin_version="simulated" if simulated else "brain_observatory_1.1"',
            'origin_version="brain_observatory_1.1"',
        ),
        ('source="a simulated NWB file" if simulated else SOURCE', "source=SOURCE"),
        (
            '(\n                "SIMULATED data in the format of Allen Visual Coding Neuropixels, not a recording: "\n'
            '                * simulated\n            )\n            + "spikes of',
            '"spikes of',
        ),
    ),
)


def pipeline_text(brainset: Brainset) -> str:
    """Our pipeline without the older upstream line and without marks of simulated data."""
    text = (ROOT / "brainsets_pipelines" / brainset.ours / "pipeline.py").read_text(
        encoding="utf-8"
    )
    text, n = OLDER_LINE.subn(lambda found: textwrap.dedent(found[1]), text)
    text, m = MARK.subn("# Download\n", text)
    text = text.replace("# End of the copy\n", "").replace(
        " (or\n``temporaldata.Data``)", ""
    )
    missing = [old for old, _ in brainset.edits if old not in text]
    if n != 1 or m != 1 or missing:
        raise SystemExit(
            f"Our {brainset.ours} pipeline has changed: adapt contrib/brainset_pieces.py.\n{missing}"
        )
    for old, new in brainset.edits:
        text = text.replace(old, new)
    ast.parse(text)
    return text


def lay(upstream: Path, brainset: Brainset) -> tuple[list[Path], list[Path]]:
    """Lay a brainset in. Returns the changed files, and the tests to run."""
    folder = (
        upstream / "torch_brain" / "pipeline" / "brainsets-pipelines" / brainset.theirs
    )
    folder.mkdir()
    (folder / "pipeline.py").write_text(pipeline_text(brainset), encoding="utf-8")
    dataset = lay_file(upstream, f"{brainset.dataset}.py", "torch_brain/datasets")
    exports = upstream / "torch_brain" / "datasets" / "__init__.py"
    name = brainset.dataset
    replace_once(
        exports,
        '    "AllenVisualCodingOphys2016",\n    "Neuro',
        f'    "AllenVisualCodingOphys2016",\n    "{name}",\n    "Neuro',
    )
    replace_once(
        exports,
        "from .AllenVisualCodingOphys2016 import",
        f"from .{name} import {name}\nfrom .AllenVisualCodingOphys2016 import",
    )
    replace_once(
        exports,
        '                "ShiraziHBNR1DS005505",\n',
        f'                "ShiraziHBNR1DS005505",\n                "{name}",\n',
    )
    test = lay_test(upstream, f"test_{brainset.theirs}.py", "tests/pipeline")
    return [folder / "pipeline.py", dataset, exports, test], [
        test,
        upstream / "tests" / "test_new_dataset.py",
    ]


def lay_tvsd(upstream: Path) -> tuple[list[Path], list[Path]]:
    return lay(upstream, TVSD)


def lay_allen(upstream: Path) -> tuple[list[Path], list[Path]]:
    return lay(upstream, ALLEN)
