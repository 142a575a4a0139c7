"""Speed and memory of the encoder's cross-attention: NeuroBridge beside CaPOYO or POYO. Run with --help."""

from pathlib import Path

import click
import torch
from side_by_side import UPSTREAM, Case, write_table
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results"


def forward(name: str, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Latents before the first processing layer: tokens, cross-attention, feed-forward network."""
    if name == "NeuroBridge":
        return model.encode(**inputs)
    if name == "CaPOYO":
        parts = (model.input_value_map(inputs["input_values"]), model.unit_emb(inputs["input_unit_index"]))
        tokens = torch.cat(parts, dim=-1)
    else:
        tokens = model.unit_emb(inputs["input_unit_index"]) + model.token_type_emb(inputs["input_token_type"])
    latents = model.latent_emb(inputs["latent_index"])
    times = (model.rotary_emb(inputs[f"{of}_timestamps"]) for of in ("latent", "input"))
    latents = latents + model.enc_atn(latents, tokens, *times, inputs["input_mask"])
    return latents + model.enc_ffn(latents)


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--units", "-n", type=int, multiple=True, default=(96, 384, 1024), help="Units N; may be given again.")
@click.option("--bins", "-t", type=int, multiple=True, default=(1, 6, 30), help="Bins T of a grid; may be given again.")
@click.option("--repeats", type=int, default=7, help="Steps of each model that count, taken in turn.")
@click.option("--cpu-time", is_flag=True, help="Count processor time: for a busy machine, with OMP_NUM_THREADS=1.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda.")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), multiple=True, default=("fp32",), help="bf16: autocast."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: benchmarks/results/encoder_….md")
def main(units, bins, repeats, cpu_time, device, precision, out) -> None:
    """Time the encoder alone, forward and backward: what reads the tokens into the latents.

    As benchmarks/train_step.py, with neither processing layers nor decoder. NeuroBridge's encoder has unit-specific
    value maps and the population embedding, which the upstream models do not have.

    \b
    Examples:
      .venv-upstream01/bin/python benchmarks/encoder.py
      .venv/bin/python benchmarks/encoder.py -n 1024
    """
    grids = bins if UPSTREAM == "CaPOYO" else (0,)
    cases = [
        Case(n, t, depth=0, device=device, precision=p, cpu_time=cpu_time)
        for p in precision
        for n in units
        for t in grids
    ]
    title = f"The encoder, NeuroBridge beside {UPSTREAM}"
    out = out or RESULTS / f"encoder_{UPSTREAM.lower()}.md"
    write_table(title, cases, forward, repeats=repeats, peak_tflops=None, out=out)


if __name__ == "__main__":
    main()
