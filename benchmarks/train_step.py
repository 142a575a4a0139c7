"""Speed and memory of a training step: NeuroBridge beside CaPOYO or POYO. Run with --help."""

from pathlib import Path

import click
import torch
from side_by_side import UPSTREAM, Case, write_table
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results"


def forward(name: str, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """All predictions of a model."""
    predictions = model(**inputs)
    return next(iter(predictions.values())) if name == "CaPOYO" else predictions


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--units", "-n", type=int, multiple=True, default=(96, 384, 1024), help="Units N; may be given again.")
@click.option("--bins", "-t", type=int, multiple=True, default=(1, 6, 30), help="Bins T of a grid; may be given again.")
@click.option(
    "--queries", type=click.Choice(["64", "masked"]), multiple=True, default=("64", "masked"),
    help="64: all units seen, 64 target cells. masked: 30 % of the units hidden, all their cells targets.",
)  # fmt: skip
@click.option("--depth", type=int, default=6, help="Self-attention layers.")
@click.option("--repeats", type=int, default=7, help="Steps of each model that count, taken in turn.")
@click.option("--cpu-time", is_flag=True, help="Count processor time: for a busy machine, with OMP_NUM_THREADS=1.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda.")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), multiple=True, default=("fp32",), help="bf16: autocast."
)
@click.option("--compiled", is_flag=True, help="Through torch.compile.")
@click.option(
    "--peak-tflops", type=float, help="The device's peak (dense), to print the share of it that is used (MFU)."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: benchmarks/results/train_step_….md"
)
def main(units, bins, queries, depth, repeats, cpu_time, device, precision, compiled, peak_tflops, out) -> None:
    """Time a training step (forward, backward, AdamW) of NeuroBridge and of the upstream model that is installed.

    \b
    torch_brain 0.1 (make compat sets up its environment):  CalciumPOYOPlus, on a grid of N units x T bins
    torch_brain 0.2:                                        POYO, on spike events of N units

    Both models have the same width, depth, latents and output queries, and read the same tokens. They run in turn in
    one process, so that other load on the machine meets both alike: trust the ratios, not the times. Peak memory is
    that of a fresh process for each model, beyond what it holds with model and batch.

    \b
    Examples:
      .venv-upstream01/bin/python benchmarks/train_step.py -n 1024 -t 6 -t 30
      .venv/bin/python benchmarks/train_step.py -n 384 --queries 64
    """
    grids = bins if UPSTREAM == "CaPOYO" else (0,)
    cases = [
        Case(n, t, masked=q == "masked", depth=depth, device=device, precision=p, compiled=compiled, cpu_time=cpu_time)
        for p in precision
        for q in queries
        for n in units
        for t in grids
    ]
    out = out or RESULTS / f"train_step_{UPSTREAM.lower()}.md"
    title = f"A training step, NeuroBridge beside {UPSTREAM}"
    write_table(title, cases, forward, repeats=repeats, peak_tflops=peak_tflops, out=out)


if __name__ == "__main__":
    main()
