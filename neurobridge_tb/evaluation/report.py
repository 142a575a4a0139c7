"""One self-contained HTML page of everything that a workspace holds: figures, tables, pictures, how they were made."""

import io
from base64 import b64encode
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurobridge_tb import __version__
from neurobridge_tb.errors import InputError
from neurobridge_tb.evaluation import report_tables as tables
from neurobridge_tb.evaluation.figure_style import save_png, to_data_uri
from neurobridge_tb.evaluation.figures import retrieval_bars, training_curves
from neurobridge_tb.evaluation.headlines import headlines
from neurobridge_tb.evaluation.image_grids import best_median_worst, hero, spread_over_ranks
from neurobridge_tb.evaluation.image_metrics import pixcorr
from neurobridge_tb.evaluation.masked_figure import masked_window
from neurobridge_tb.evaluation.result_names import label, main_name
from neurobridge_tb.evaluation.workspace import Gallery, Results, read_workspace
from neurobridge_tb.files import write_aside

if TYPE_CHECKING:
    from markupsafe import Markup

_SHOWN_SIZE = 256  # px; larger pictures are shrunk for the page
_OPEN_IMAGES = 24
_RUN_TITLES = {"pretrain": "Masked pretraining", "align": "Alignment with image embeddings"}


def build_report(workspace: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a workspace.

    Args:
        workspace: Folder with ``runs/pretrain``, ``runs/align``, ``runs/evaluate``, ``runs/reconstruct``, or some of
            them: a stage that was not run leaves a note with the command that makes it.
        out: HTML file; default: ``<workspace>/report/index.html``.

    Returns:
        The HTML file. It needs no other file and no network.

    Raises:
        InputError: The workspace holds no result, or one that cannot be read.
    """
    results = read_workspace(workspace)
    page = render(results)
    target = Path(out) if out is not None else results.path / "report" / "index.html"
    with write_aside(target) as aside:
        aside.write_text(page, encoding="utf-8")
    return target


def save_hero(workspace: str | Path, out: str | Path, *, columns: int = 8) -> Path:
    """Write a strip of seen, baseline and reconstructed images, spread evenly over the ranking, as PNG.

    Args:
        workspace: Folder with ``runs/reconstruct``.
        out: PNG file.
        columns: Images shown.

    Raises:
        InputError: The workspace holds no reconstructions.
    """
    gallery = read_workspace(workspace).gallery
    if gallery is None:
        raise InputError(
            expected="reconstructions in runs/reconstruct/reconstructions.h5",
            found=f"none in {workspace}",
            fix="Run 'neurobridge reconstruct' first.",
        )
    main = main_name(gallery.made)
    rows = {"seen": gallery.seen} | {label(name): made for name, made in gallery.made.items()}
    save_png(hero(rows, pixcorr(gallery.seen, gallery.made[main]), columns=columns), out)
    return Path(out)


def render(results: Results) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("neurobridge_tb.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=", ".join(results.datasets) or results.path.resolve().name,
        simulated=results.simulated,
        flags={
            name: bool((getattr(results, name) or {}).get("simulated"))
            for name in ("pretrain", "align", "retrieval", "reconstruct")
        },
        made_on=date.today().isoformat(),
        version=__version__,
        cards=headlines(results),
        masked=_masked(results),
        curves=[
            {"title": _RUN_TITLES.get(run, run), "figure": to_data_uri(training_curves(curves)), "run": run}
            for run, curves in results.curves.items()
            if curves
        ],
        forgetting=tables.forgetting_table(results.align),
        retrieval=_retrieval(results),
        gallery=_gallery(results.gallery),
        reconstruction=tables.reconstruction_table(results.reconstruct),
        stages=tables.stages_table(results),
        configs=results.configs,
    )


def _masked(results: Results) -> dict[str, Any]:
    example = results.masked_example
    return {
        "table": tables.pretraining_table(results.pretrain),
        "figure": to_data_uri(masked_window(example)) if example else None,
        "scheme": str(example["scheme"]) if example else None,
        "bins": len(example["values"]) if example else None,
    }


def _retrieval(results: Results) -> dict[str, Any] | None:
    if results.retrieval is None:
        return None
    groups = tables.retrieval_groups(results.retrieval)
    return {
        "candidates": results.retrieval["n_candidates"],
        "table": tables.retrieval_table(results.retrieval),
        "figures": [
            {"title": title, "figure": to_data_uri(retrieval_bars(rows, results.retrieval["chance"]))}
            for title, rows in groups.items()
        ],
    }


def _gallery(gallery: Gallery | None) -> dict[str, Any] | None:
    if gallery is None or not gallery.made:
        return None
    scores = {name: pixcorr(gallery.seen, made) for name, made in gallery.made.items()}
    main = main_name(gallery.made)
    seen = [picture(image) for image in gallery.seen]
    made = {name: [picture(image) for image in images] for name, images in gallery.made.items()}
    rank = np.argsort(np.argsort(-scores[main], kind="stable")) + 1
    cards = [
        {
            "id": image_id,
            "name": Path(image_id).stem,
            "rank": int(rank[index]),
            "seen": seen[index],
            "made": [
                {"name": label(name), "picture": made[name][index], "score": float(scores[name][index])}
                for name in gallery.made
            ],
        }
        for index, image_id in enumerate(gallery.image_id)
    ]
    groups = best_median_worst(scores[main])
    return {
        "main": label(main),
        "total": gallery.total,
        "samples": gallery.samples,
        "hero": [cards[index] for index in spread_over_ranks(scores[main], 8)],
        "groups": {name: [cards[index] for index in chosen] for name, chosen in groups.items()},
        "open": cards[:_OPEN_IMAGES],
        "folded": cards[_OPEN_IMAGES:],
    }


def picture(image: np.ndarray) -> "Markup":
    """An image ``(H, W, 3)`` uint8 as a ``data:`` address, JPEG without colour subsampling, at most 256 px wide."""
    from markupsafe import Markup
    from PIL import Image

    shown = Image.fromarray(image)
    shown.thumbnail((_SHOWN_SIZE, _SHOWN_SIZE))
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=94, subsampling=0)
    return Markup("data:image/jpeg;base64," + b64encode(stream.getvalue()).decode())
