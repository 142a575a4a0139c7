"""A model card from a run: what the model is, its data and licence, its scores, and the commands that made it."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import yaml

from neurobridge_tb import __version__
from neurobridge_tb.errors import InputError
from neurobridge_tb.report.report_tables import markdown
from neurobridge_tb.report.run_sections import result_table
from neurobridge_tb.report.runs import Run, find_runs, read_json

_USES = {
    "NeuroBridgeModel": "Latents of the recordings above, or of new ones after `neurobridge adapt`; decoding of "
    "stimuli and behaviour from them; filling in units, areas and spans of time that were not recorded.",
    "ImageAligner": "From the activity of the units above to embeddings of images: retrieval of the seen image, "
    "and reconstruction with a decoder of the same image network.",
    "NeuroHorizonModel": "Forecasts of spike counts, also of units that were not in its training.",
    "BehaviorDecoder": "The behaviour that it was trained on, from the activity of the units above.",
}
_LIMITS = (
    "Not for clinical decisions. The scores hold for the recordings and splits named here; other animals, areas and "
    "recording methods need new scores."
)
_FOLDERS = re.compile(r"(?<![^\s='\"\[,])/\S+/(?=[^/\s]+/[^/\s]+)")


def model_card(
    run: str | Path, *, name: str, licence: str, scores: Sequence[str | Path] = (), use: str = "", limits: str = _LIMITS
) -> str:
    """The text of a model card, in the form of the Hugging Face hub.

    Args:
        run: Folder of a training's run: with ``model/``, ``config.yaml`` and ``metrics.json``.
        name: ``"organisation/model"``, under which the model will be found.
        licence: Of the weights, in the hub's spelling, e.g. ``"cc-by-4.0"``; the data's terms decide.
        scores: Folders of further runs that scored the model (``evaluate``, ``score``, ``decode``, …).
        use: What it is for; default: what its class is for.
        limits: What it is not for.

    Raises:
        InputError: A folder holds no finished run, or the first one no model.
    """
    training, *others = (_finished(Path(folder)) for folder in (run, *scores))
    saved = read_json(training.folder / "model" / "config.json")
    if saved is None:
        raise InputError(
            expected="a run of a training, with a folder `model`",
            found=f"none in {training.folder}",
            fix="Name the run of `pretrain`, `align`, `forecast`, `adapt` or `finetune`; its scores go in beside it.",
        )
    simulated = any(part.result.get("simulated", False) for part in (training, *others))
    kind = "simulated" if simulated else "real"
    head = {
        "library_name": "neurobridge-tb",
        "license": licence,
        "tags": ["neuroscience", "neural-decoding", saved["class"], f"{kind}-recordings"],
    }
    units = max((len(words) - 1 for key, words in saved["vocabs"].items() if "unit" in key), default=0)
    sessions: list[str] = next(
        (words[1:] for key, words in saved["vocabs"].items() if key.endswith("session_emb.vocab")), []
    )
    shown = ", ".join(sessions[:10]) + (f" and {len(sessions) - 10} more" if len(sessions) > 10 else "")
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {name.rpartition('/')[-1]}\n",
        f"`{saved['class']}` of NeuroBridge for torch_brain, trained on **{kind}** recordings.\n",
        f"```python\nfrom neurobridge_tb.models import {saved['class']}\n\n"
        f'model = {saved["class"]}.from_pretrained("{name}")\n```\n',
        "## Data\n",
        f"{training.result.get('dataset', training.name)}, {kind}: {units:,} units; recordings {shown}. Seed "
        f"{(yaml.safe_load(training.config) or {}).get('seed', 'not noted')}. Licence of the weights: {licence}.\n",
        "## Scores\n",
        *(_scores(part) for part in (training, *others)),
        "## Intended use\n",
        f"{use or _USES[saved['class']]}\n",
        f"{limits}\n",
        "## How to reproduce\n",
        "\n".join(["```", *(_command(part) for part in (training, *others)), "```\n"]),
        f"Made with neurobridge-tb {__version__}, torch_brain {version('torch_brain')}, torch {version('torch')}.\n",
    ]
    return "\n".join(lines)


def _finished(folder: Path) -> Run:
    found = [run for run in find_runs(folder) if run.folder == folder and run.result]
    if not found:
        raise InputError(
            expected="a folder of a finished run",
            found=f"no results in {folder}",
            fix="Let the run end, then try again.",
        )
    return found[0]


def _command(run: Run) -> str:
    """The command of a run; folders of the machine that it ran on are left out."""
    return _FOLDERS.sub("", str(run.result.get("command") or f"neurobridge {run.job}"))


def _scores(run: Run) -> str:
    table = result_table(run.result)
    if table is None:
        return ""
    split = f"{run.result['split']} split" if "split" in run.result else None
    title = ", ".join(filter(None, (f"`{run.job}`", split, run.result.get("metric"))))
    cells = [row.cells for rows in table.groups.values() for row in rows]
    return "\n".join([f"{title}:\n", markdown(table.columns, cells), *(f"- {note}" for note in table.notes), ""])
