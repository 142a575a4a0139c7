"""One self-contained HTML page of everything that a workspace holds: figures, tables, pictures, how they were made."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from neurobridge_tb import __version__
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import check_replaceable, write_aside
from neurobridge_tb.metrics.image_metrics import pixcorr
from neurobridge_tb.report import report_tables as tables
from neurobridge_tb.report.drawing.figure_style import to_data_uri
from neurobridge_tb.report.drawing.figures import retrieval_bars, training_curves
from neurobridge_tb.report.drawing.image_grids import best_median_worst, spread_over_ranks
from neurobridge_tb.report.drawing.layer_figure import layer_points
from neurobridge_tb.report.drawing.masked_figure import masked_window
from neurobridge_tb.report.drawing.pictures import picture
from neurobridge_tb.report.headlines import headlines
from neurobridge_tb.report.rating import people_line
from neurobridge_tb.report.result_names import label, main_name
from neurobridge_tb.report.run_sections import overview, run_sections
from neurobridge_tb.report.runs import reading_results
from neurobridge_tb.report.workspace import Gallery, Results, read_workspace

_MARK = '<meta name="generator" content="NeuroBridge">'  # of the template
_GROUP = 6  # images that are shown as best, as median and as worst
_RUN_TITLES = {"pretrain": "Masked pretraining", "align": "Alignment with image embeddings"}


def build_report(workspace: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a workspace.

    Args:
        workspace: A folder with runs in it, however they are called, or the folder of one run. Where pictures are the
            aim, a stage that was not run leaves a note with the command that makes it.
        out: HTML file; default: ``<workspace>/report/index.html``.

    Returns:
        The HTML file. It needs no other file and no network.

    Raises:
        InputError: The workspace holds no result, or one that cannot be read.
    """
    target = Path(out) if out is not None else Path(workspace) / "report" / "index.html"
    with reading_results(workspace):
        results = read_workspace(workspace)
        check_replaceable(target, lambda page: _MARK in page.read_text(encoding="utf-8"), "a report")
        page = render(results)
    with write_aside(target) as aside:
        aside.write_text(page, encoding="utf-8")
    return target


def render(results: Results) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("neurobridge_tb.report"),
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
        areas=_areas(results),
        reconstruction=tables.reconstruction_table(results.reconstruct),
        predictability=tables.predictability_table(results.reconstruct),
        without_concepts=_without_concepts(results),
        people=[people_line(ratings) for ratings in results.ratings],
        stages=tables.stages_table(results),
        sections=run_sections(results.runs),
        overview=overview(results.runs),
        main_job=results.has_main_job,
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
        "layers": tables.layer_table(results.retrieval),
        "layer_figure": to_data_uri(layer_points(results.retrieval))
        if results.retrieval.get("rows by layer")
        else None,
        "figures": [
            {"title": title, "figure": to_data_uri(retrieval_bars(rows, results.retrieval["chance"]))}
            for title, rows in groups.items()
        ],
    }


def _without_concepts(results: Results) -> dict[str, tables.Table | None]:
    retrieval, reconstruct = (results.without_concepts.get(job) for job in ("evaluate", "reconstruct"))
    return {
        "retrieval": tables.retrieval_table(retrieval) if retrieval else None,
        "reconstruct": tables.reconstruction_table(reconstruct),
    }


def _gallery(gallery: Gallery | None) -> dict[str, Any] | None:
    if gallery is None or not gallery.made:
        return None
    main = main_name(gallery.made)
    scores = {name: _sample_scores(gallery.seen, made) for name, made in gallery.made.items()}
    ranking = np.argsort(-scores[main][:, 0], kind="stable")
    rank = np.argsort(ranking) + 1
    cards = [
        {
            "id": image_id,
            "name": Path(image_id).stem,
            "rank": int(rank[index]),
            "cosine": None if gallery.cosine is None else float(gallery.cosine[index]),
            "seen": picture(gallery.seen[index]),
            "made": [
                {
                    "backend": label(name),
                    "name": f"{label(name)}{which}",
                    "picture": picture(gallery.made[name][index, sample]),
                    "score": float(scores[name][index, sample]),
                }
                for name in gallery.made
                for which, sample in _shown_samples(scores[name][index]).items()
            ],
        }
        for index, image_id in enumerate(gallery.image_id)
    ]
    groups = best_median_worst(scores[main][:, 0], _GROUP)
    return {
        "main": label(main),
        "total": gallery.total,
        "samples": max(made.shape[1] for made in gallery.made.values()),
        "hero": _hero(gallery, spread_over_ranks(scores[main][:, 0], 8), rank),
        "groups": {name: [cards[index] for index in chosen] for name, chosen in groups.items()},
        "ranked": [cards[index] for index in ranking],
    }


def _hero(gallery: Gallery, chosen: np.ndarray, rank: np.ndarray) -> dict[str, Any]:
    """Rows of pictures, first samples only, of the chosen images."""
    rows = {"seen": gallery.seen} | {label(name): made[:, 0] for name, made in gallery.made.items()}
    return {**_strip(rows, gallery.image_id, chosen), "ranks": [int(rank[index]) for index in chosen]}


def _areas(results: Results) -> dict[str, Any] | None:
    """The first sample of the main backend from all areas and from each alone, of images at even steps of the former's
    ranking, and how good each is over all images."""
    gallery, by_area = results.gallery, results.gallery_by_area
    whole = ", ".join((results.reconstruct or {}).get("areas") or ["all areas"])
    if gallery is None or not gallery.made or not by_area:
        return None
    main, rows, scores, means = main_name(gallery.made), {"seen": gallery.seen}, {}, []
    for name, of_areas in {whole: gallery, **by_area}.items():
        if of_areas.image_id != gallery.image_id or main not in of_areas.made:
            raise InputError(
                expected=f"the same test images in the reconstructions from {name} as in runs/reconstruct, and {main}",
                found=f"{len(of_areas.image_id)} images, {', '.join(of_areas.made)}",
                fix="Run 'neurobridge reconstruct' again with the same recording and backends, or remove that run.",
            )
        rows[name] = of_areas.made[main][:, 0]
        cosine = "" if of_areas.cosine is None else f", embedding cosine {of_areas.cosine.mean():.2f}"
        scores[name] = pixcorr(gallery.seen, rows[name])
        means.append(f"{name}: PixCorr {scores[name].mean():.3f}{cosine}")
    chosen = spread_over_ranks(scores[whole], 8)
    return {"main": label(main), **_strip(rows, gallery.image_id, chosen), "means": means, "whole": whole}


def _strip(rows: dict[str, np.ndarray], image_id: list[str], chosen: np.ndarray) -> dict[str, Any]:
    """Pictures of the chosen images in each row, and the images' ids."""
    return {
        "rows": {name: [picture(images[index]) for index in chosen] for name, images in rows.items()},
        "ids": [image_id[index] for index in chosen],
    }


def _sample_scores(seen: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Pixel correlation (n, S) of each sample with its seen image."""
    return np.stack([pixcorr(seen, made[:, sample]) for sample in range(made.shape[1])], axis=1)


def _shown_samples(scores: np.ndarray) -> dict[str, int]:
    """The first sample of an image; where there are three or more that differ, the best, the median and the worst."""
    if len(np.unique(scores)) < 3:
        return {"": 0}
    order = np.argsort(-scores, kind="stable")
    return {", best": int(order[0]), ", median": int(order[len(order) // 2]), ", worst": int(order[-1])}
