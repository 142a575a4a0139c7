"""A training step of NeuroHorizon beside one of POYO (torch_brain 0.2) on the same spikes. Run with --help."""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch
from side_by_side import in_turn, times_as_fast, write_markdown

from neurobridge_tb import NeuroHorizonModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.config import compose_config

HZ = 10  # spikes of a unit
SECONDS = 20.0  # of the recording that windows are drawn from
COLUMNS = ["units", "past", "future", "windows", "tokens", "POYO ms", "NeuroHorizon ms", "times as fast per token"]

Step = Callable[[], None]


def recording(folder: str, n_units: int) -> BinnedRecordings:
    """Random spikes of ``n_units`` units."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, SECONDS, int(n_units * HZ * SECONDS)))
    spikes = (times, rng.integers(0, n_units, len(times)))
    units = {"id": [f"unit{i}" for i in range(n_units)]}
    splits = {"train": ([0.0], [SECONDS])}
    data = build_recording(
        brainset_id="random", session_id="spikes", subject_id="none", units=units, spikes=spikes, end=SECONDS,
        splits=splits, simulated=True,
    )  # fmt: skip
    save_recording(data, Path(folder) / "spikes.h5")
    return BinnedRecordings(root=folder)


def both_steps(dataset: BinnedRecordings, settings: dict, windows: int) -> tuple[Step, Step, int]:
    """A training step (forward, backward, AdamW) of POYO, one of NeuroHorizon, and the tokens that both read.

    Args:
        dataset: Where the spikes are.
        settings: Arguments of NeuroHorizonModel.
        windows: Windows a step.
    """
    from torch_brain.models import POYO

    torch.manual_seed(0)
    ours = NeuroHorizonModel(**settings)
    ours.init_vocabs(dataset)
    ours.fit_units(dataset, dataset.get_sampling_intervals("train"))
    length = ours.history + ours.horizon
    starts = np.linspace(0, SECONDS - length, windows)
    batch = collate([ours.tokenize_with_targets(dataset[DatasetIndex("spikes", s, s + length)]) for s in starts])
    inputs = batch["model_inputs"]

    sizes = {k: ours.encoder.config[k] for k in ("dim", "depth", "dim_head", "cross_heads", "self_heads")}
    dropout = {k: ours.encoder.config[k] for k in ("ffn_dropout", "lin_dropout", "atn_dropout")}
    latents = {k: settings[k] for k in ("latent_step", "num_latents_per_step")}
    poyo = POYO(sequence_length=ours.history, dim_out=1, **latents, **sizes, **dropout)
    poyo.unit_emb.initialize_vocab(dataset.get_unit_ids())
    poyo.session_emb.initialize_vocab(["spikes"])
    shared = ("input_unit_index", "input_timestamps", "input_mask", "latent_index", "latent_timestamps")
    bins = torch.arange(ours.n_future) / ours.n_future * ours.history
    theirs = {k: inputs[k] for k in shared} | {
        "input_token_type": torch.zeros_like(inputs["input_unit_index"]),
        "session_index": torch.ones(windows, dtype=torch.long),
        "output_timestamps": bins.expand(windows, -1),
    }
    theirs = {k: x.float() if x.is_floating_point() else x for k, x in theirs.items()}

    def step_of(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Step:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def step() -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

        return step

    steps = (
        step_of(poyo, lambda: poyo(**theirs).square().mean()),
        step_of(ours, lambda: ours.training_loss(batch, unit_dropout=0.5)),
    )
    return *steps, int(inputs["input_mask"].sum())


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--units", "-n", type=int, multiple=True, default=(96,), help="Units; may be given again.")
@click.option("--past", type=float, multiple=True, default=(0.5, 1.0), help="History in s; may be given again.")
@click.option("--future", type=float, multiple=True, default=(0.24, 0.5, 1.0), help="Horizon in s; may be repeated.")
@click.option("--tokens", type=int, default=32_768, help="About so many spikes a step.")
@click.option("--forecaster", default="small", help="Config of the model's sizes.")
@click.option("--repeats", type=int, default=3, help="Steps of each model that count, taken in turn.")
@click.option("--cpu-time", is_flag=True, help="Count processor time: for a busy machine, with OMP_NUM_THREADS=1.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False),
    default=Path(__file__).parent / "results" / "forecast_step.md", help="Where the table goes.",
)  # fmt: skip
def main(units, past, future, tokens, forecaster, repeats, cpu_time, out) -> None:
    """Time a training step of NeuroHorizon and of POYO with its width, depth, heads and latents.

    Both read the same spikes. POYO predicts one number for each future bin; NeuroHorizon is trained as `neurobridge
    forecast` trains it: it rolls out a quarter of the windows, then runs over all bins, and predicts a rate for each
    unit in each bin. They run in turn in one process: trust the ratios, not the times.
    """
    rows = []
    for n in units:
        with tempfile.TemporaryDirectory() as folder:
            dataset = recording(folder, n)
            for history, horizon in ((h, f) for h in past for f in future):
                windows = max(2, round(tokens / (n * HZ * history)))
                overrides = [f"forecaster={forecaster}", f"model.history={history}", f"model.horizon={horizon}"]
                config = compose_config("forecast", ["dataset.root=.", "model.modality=spikes", *overrides])
                *steps, n_tokens = both_steps(dataset, asdict(config.model), windows)
                seconds = in_turn(steps, repeats, cpu_time=cpu_time)
                times = [f"{statistics.median(s) * 1e3:,.0f}" for s in seconds]
                ratio = times_as_fast(*seconds, digits=2)
                rows.append([str(n), f"{history} s", f"{horizon} s", str(windows), f"{n_tokens:,}", *times, ratio])
                click.echo(" | ".join(rows[-1]))
    how = f"`forecaster={forecaster}`, {repeats} steps of each in turn{', processor time' if cpu_time else ''}"
    write_markdown("A training step, NeuroHorizon beside POYO", how, COLUMNS, rows, out)


if __name__ == "__main__":
    main()
