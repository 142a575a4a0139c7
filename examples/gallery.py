"""Draw the figures of docs/gallery.md: python examples/gallery.py OUT WORKSPACE [WORKSPACE ...]

Each workspace is a folder with runs in it, e.g. that of `neurobridge demo` and those that the notebooks leave.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from neurobridge_tb.metrics.image_metrics import pixcorr
from neurobridge_tb.report.drawing.figures import retrieval_bars, training_curves
from neurobridge_tb.report.drawing.image_grids import best_median_worst, image_grid
from neurobridge_tb.report.drawing.layer_figure import layer_points
from neurobridge_tb.report.drawing.masked_figure import masked_window
from neurobridge_tb.report.report_tables import retrieval_groups
from neurobridge_tb.report.result_names import label, main_name
from neurobridge_tb.report.workspace import Results, read_workspace

LEFT_BY_RUNS = ("decode", "forecast", "latents")  # whose figures lie in their folders


def figures(results: Results) -> dict:
    """Figures of the report, by name."""
    drawn = {f"curves_{name.rpartition('/')[-1]}": training_curves(c) for name, c in results.curves.items() if c}
    if results.masked_example:
        drawn["masked"] = masked_window(results.masked_example)
    if results.retrieval:
        title, rows = next(iter(retrieval_groups(results.retrieval).items()))
        drawn["retrieval"] = retrieval_bars(rows, results.retrieval["chance"])
        drawn["layers"] = layer_points(results.retrieval)
    if results.gallery:
        made = {name: pictures[:, 0] for name, pictures in results.gallery.made.items()}
        scores = pixcorr(results.gallery.seen, made[main_name(made)])
        rows = {"seen": results.gallery.seen} | {label(name): pictures for name, pictures in made.items()}
        groups = best_median_worst(np.asarray(scores), 4)
        drawn["pictures"] = image_grid(rows, groups, [f"{score:.2f}" for score in scores])
    return drawn


if __name__ == "__main__":
    out, *workspaces = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for workspace in workspaces:
        results = read_workspace(workspace)
        for name, figure in figures(results).items():
            file = out / f"gallery_{name}.png"
            figure.savefig(file, dpi=110, facecolor="white", bbox_inches="tight")
            Image.open(file).convert("RGB").quantize(256).save(file, optimize=True)
        for run in results.runs:
            if run.job in LEFT_BY_RUNS:
                for figure in run.folder.rglob("*.png"):
                    shutil.copy(figure, out / f"gallery_{run.job}_{figure.name}")
