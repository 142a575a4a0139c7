"""Two models on the same tokens, side by side in one process: what the benchmarks share.

Beside NeuroBridge stands the real upstream model of the line that is installed: ``CalciumPOYOPlus`` (CaPOYO) of
torch_brain 0.1 on a grid of units x bins, or ``POYO`` of torch_brain 0.2 on spike events.
"""

import logging
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import UPSTREAM_LINE, create_linspace_latent_tokens

UPSTREAM = "CaPOYO" if UPSTREAM_LINE == "0.1" else "POYO"
MODELS = (UPSTREAM, "NeuroBridge")
SIZES = dict(
    dim=128, dim_head=64, cross_heads=2, self_heads=4, num_latents_per_step=8,
    ffn_dropout=0.2, lin_dropout=0.2, atn_dropout=0.0,
)  # fmt: skip
# A window of a presentation (48 latents), or of ongoing activity (64 latents).
WINDOW = (
    dict(sequence_length=0.3, latent_step=0.05)
    if UPSTREAM == "CaPOYO"
    else dict(sequence_length=1.0, latent_step=0.125)
)
MASKED = 0.3  # of the units, where the queries are all masked cells
HZ = 10  # spikes of a unit


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        units: Number of units N.
        bins: Number of bins T of a grid; 0 for spike events.
        masked: Ask for every cell of 30 % of the units, which are left out of the input; else for 64 cells.
        depth: Self-attention layers.
        device, precision, compiled: How it runs.
        cpu_time: Count processor time, which other work on the machine hardly touches, in place of time on the clock.
    """

    units: int
    bins: int
    masked: bool = False
    depth: int = 6
    device: str = "cpu"
    precision: str = "fp32"
    compiled: bool = False
    cpu_time: bool = False

    @property
    def units_masked(self) -> int:
        return round(MASKED * self.units) if self.masked else 0

    @property
    def tokens(self) -> int:
        """Input tokens of a window."""
        units = self.units - self.units_masked
        return units * self.bins if self.bins else round(units * HZ * WINDOW["sequence_length"])

    @property
    def batch(self) -> int:
        """Windows a step: 4 to 64 of them, about 100,000 values or 33,000 spikes."""
        fitting = 98_304 // (self.units * self.bins) if self.bins else 32_768 // (self.units * HZ)
        return min(64, max(4, fitting))

    @property
    def queries(self) -> tuple[int, int]:
        """Target bins K and units M."""
        return (self.bins or 20, self.units_masked) if self.masked else (1, 64)


def make_inputs(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same random windows for the upstream model and for NeuroBridge."""
    generator = torch.Generator().manual_seed(0)
    n_items, length = case.batch, WINDOW["sequence_length"]
    latent_index, latent_times = create_linspace_latent_tokens(
        0, length, step=WINDOW["latent_step"], num_latents_per_step=SIZES["num_latents_per_step"]
    )
    shared = {
        "latent_index": torch.from_numpy(latent_index).expand(n_items, -1),
        "latent_timestamps": torch.from_numpy(latent_times).float().expand(n_items, -1),
    }
    order = torch.stack([1 + torch.randperm(case.units, generator=generator) for _ in range(n_items)])
    n_bins, n_queries = case.queries
    queried = order[:, :n_queries]
    output_times = (torch.arange(n_bins) * length / n_bins).expand(n_items, -1)
    seen = order[:, case.units_masked :].sort(dim=1).values
    ours = shared | {
        "session_index": torch.ones(n_items, dtype=torch.long),
        "output_timestamps": output_times,
        "output_unit_index": queried,
        "output_mask": torch.ones(n_items, n_bins, n_queries, dtype=torch.bool),
    }
    every = torch.ones(n_items, case.tokens, dtype=torch.bool)
    if case.bins:
        times = torch.arange(case.bins) * length / case.bins
        values = torch.randn(n_items, case.bins, case.units, generator=generator)
        keep = torch.zeros(n_items, 1, case.units, dtype=torch.bool).scatter_(2, seen[:, None] - 1, True)
        keep = keep.repeat(1, case.bins, 1)
        tokens = {
            "input_values": values[keep].view(n_items, -1, 1),
            "input_mask": every,
            "input_timestamps": times.repeat_interleave(seen.shape[1]).expand(n_items, -1),
            "input_unit_index": seen.repeat(1, case.bins),
        }
        ours |= {
            "mask_patterns": keep[:, :1],
            "mask_pattern_index": torch.zeros(n_items, case.bins, dtype=torch.long),
            "input_values": values,
            "input_mask": keep,
            "input_timestamps": times.expand(n_items, -1),
            "input_unit_index": torch.arange(1, case.units + 1).expand(n_items, -1),
        }
    else:
        which = torch.randint(seen.shape[1], (n_items, case.tokens), generator=generator)
        tokens = {
            "input_mask": every,
            "input_timestamps": (torch.rand(n_items, case.tokens, generator=generator) * length).sort(dim=1).values,
            "input_unit_index": seen.gather(1, which),
        }
        edges = torch.arange(1, n_bins + 1) * length / n_bins
        cell = torch.bucketize(tokens["input_timestamps"], edges[:-1]) * case.units + tokens["input_unit_index"] - 1
        counts = torch.zeros(n_items, n_bins * case.units).scatter_add_(1, cell, torch.ones(cell.shape))
        kept = torch.zeros(n_items, 1, case.units, dtype=torch.bool).scatter_(2, seen[:, None] - 1, True)
        ours |= tokens | {
            "mask_patterns": kept,
            "mask_pattern_index": torch.zeros(n_items, n_bins, dtype=torch.long),
            "count_values": counts.unflatten(1, (n_bins, case.units)),
            "count_mask": kept.repeat(1, n_bins, 1),
            "count_timestamps": output_times,
            "count_unit_index": torch.arange(1, case.units + 1).expand(n_items, -1),
        }
    theirs = shared | tokens | {"output_timestamps": output_times.repeat_interleave(n_queries, dim=1)}
    if UPSTREAM == "CaPOYO":
        theirs["output_session_index"] = torch.ones_like(theirs["output_timestamps"], dtype=torch.long)
        theirs["output_decoder_index"] = torch.full_like(theirs["output_session_index"], _readout_id())
    else:
        theirs["input_token_type"] = torch.zeros_like(tokens["input_unit_index"])
        theirs["session_index"] = ours["session_index"]
    return theirs, ours


def _readout_id() -> int:
    """A one-dimensional readout of CaPOYO."""
    from torch_brain.registry import MODALITY_REGISTRY

    return min(MODALITY_REGISTRY.values(), key=lambda spec: spec.dim).id


def make_model(name: str, case: Case) -> nn.Module:
    """A model of equal sizes, which knows the units of the case."""
    torch.manual_seed(0)
    unit_ids = [f"unit{i}" for i in range(case.units)]
    if name == "NeuroBridge":
        model = NeuroBridgeModel(modality="mua" if case.bins else "spikes", depth=case.depth, **SIZES, **WINDOW)
        model.init_vocabs(SimpleNamespace(get_unit_ids=lambda: unit_ids, recording_ids=["session"]))
        return model
    logging.disable(logging.WARNING)  # upstream warns that 0.3 is not a multiple of 0.05
    if name == "CaPOYO":
        from torch_brain.models import CalciumPOYOPlus

        model = CalciumPOYOPlus(depth=case.depth, **SIZES, **WINDOW)
    else:
        from torch_brain.models import POYO

        model = POYO(dim_out=1, depth=case.depth, **SIZES, **WINDOW)
    model.unit_emb.initialize_vocab(unit_ids)
    model.session_emb.initialize_vocab(["session"])
    return model


Forward = Callable[[str, nn.Module, dict[str, Tensor]], Tensor]


def make_step(name: str, case: Case, forward: Forward) -> Callable[[], None]:
    """One training step: forward, backward, AdamW.

    Args:
        name: Which of the two models.
        case: What to run.
        forward: Takes the model's name, the model and its inputs; the loss is the mean square of what it returns.
    """
    model = make_model(name, case).to(case.device)
    inputs = {k: x.to(case.device) for k, x in make_inputs(case)[name == "NeuroBridge"].items()}
    if case.compiled:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(torch.device(case.device).type, dtype=torch.bfloat16, enabled=case.precision == "bf16"):
            predictions = forward(name, model, inputs)
        predictions.float().square().mean().backward()
        optimizer.step()
        if case.device != "cpu":
            torch.accelerator.synchronize()

    return step


def seconds_of(case: Case, forward: Forward, repeats: int) -> list[list[float]]:
    """Seconds of the steps of both models, taken in turn; two steps of each before them do not count."""
    return in_turn([make_step(name, case, forward) for name in MODELS], repeats, cpu_time=case.cpu_time)


def in_turn(steps: Sequence[Callable[[], None]], repeats: int, *, cpu_time: bool) -> list[list[float]]:
    """Seconds of each step, taken in turn ``repeats`` times; two rounds before them do not count."""
    seconds: list[list[float]] = [[] for _ in steps]
    clock = time.process_time if cpu_time else time.perf_counter
    for i in range(repeats + 2):
        for step, measured in zip(steps, seconds, strict=True):
            start = clock()
            step()
            if i >= 2:
                measured.append(clock() - start)
    return seconds


def times_as_fast(theirs: Sequence[float], ours: Sequence[float], digits: int) -> str:
    """Median and range of the ratios of steps taken in turn, as a table's cell."""
    ratios = sorted(t / o for t, o in zip(theirs, ours, strict=True))
    median, low, high = (f"{x:.{digits}f}" for x in (statistics.median(ratios), ratios[0], ratios[-1]))
    return f"**{median}** ({low}-{high})"


def peak_memory(name: str, case: Case, forward: Forward) -> float:
    """MB that three steps take at their peak beyond model and batch, in a fresh process (Linux, or a CUDA GPU)."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_send_peak_memory, args=(send, name, case, forward, torch.get_num_threads()))
    child.start()
    send.close()
    peak = receive.recv()
    child.join()
    return peak


def _send_peak_memory(pipe, name: str, case: Case, forward: Forward, threads: int) -> None:
    torch.set_num_threads(threads)
    step = make_step(name, case, forward)
    on_cpu = case.device == "cpu"
    before = _resident("VmRSS") if on_cpu else torch.cuda.memory_allocated() / 1e6
    for _ in range(3):
        step()
    pipe.send((_resident("VmHWM") if on_cpu else torch.cuda.max_memory_allocated() / 1e6) - before)


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1.024e-3


def flops_of(step: Callable[[], None], case: Case) -> float:
    """Floating-point operations of the matrix products of a step."""
    from torch.utils.flop_counter import FlopCounterMode

    operators = torch.ops.neurobridge_tb

    def products(n: int) -> Callable[..., int]:  # of queries and tokens
        return lambda *_, **__: 2 * n * case.batch * case.tokens * _n_queries(case)

    custom = {operators.bin_attention: products(2), operators.bin_attention_backward: products(5)}
    with FlopCounterMode(display=False, custom_mapping=custom) as counter:
        step()
    return counter.get_total_flops()


def _n_queries(case: Case) -> int:
    latents = round(WINDOW["sequence_length"] / WINDOW["latent_step"]) * SIZES["num_latents_per_step"]
    return latents * SIZES["cross_heads"] * SIZES["dim_head"]


def row_of(case: Case, forward: Forward, repeats: int, peak_tflops: float | None) -> list[str]:
    """Measure one row of the table; see :func:`write_table` for its columns."""
    theirs, ours = seconds_of(case, forward, repeats)
    memory = [peak_memory(name, case, forward) for name in MODELS]
    tokens = case.batch * case.tokens
    row = [
        str(case.units),
        str(case.bins) if case.bins else f"{case.tokens} spikes",
        str(case.batch),
        "masked" if case.masked else "64",
        case.precision + (", compiled" if case.compiled else ""),
        *(f"{statistics.median(seconds) * 1e3:,.0f}" for seconds in (theirs, ours)),
        *(f"{tokens / statistics.median(seconds):,.0f}" for seconds in (theirs, ours)),
        times_as_fast(theirs, ours, digits=1),
        *(f"{m:,.0f}" for m in memory),
        f"**{memory[1] / memory[0]:.2f}**",
    ]
    if peak_tflops is not None:
        for name, seconds in zip(MODELS, (theirs, ours), strict=True):
            flops = flops_of(make_step(name, case, forward), case)
            row.append(f"{flops / statistics.median(seconds) / peak_tflops * 1e-10:.1f} %")
    return row


def write_table(
    title: str, cases: Sequence[Case], forward: Forward, *, repeats: int, peak_tflops: float | None, out: Path
) -> None:
    """Measure all cases, print a table and write it to ``out`` with the command, the machine and the versions."""
    columns = ["units", "bins", "batch", "queries", "precision"]
    columns += [f"{name} {unit}" for unit in ("ms", "tokens/s") for name in MODELS]
    columns += ["times as fast", *(f"{name} MB" for name in MODELS), "memory"]
    columns += [f"{name} MFU" for name in MODELS] if peak_tflops is not None else []
    rows = [row_of(case, forward, repeats, peak_tflops) for case in track(cases, title, console=Console(stderr=True))]
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(cell.replace("**", "") for cell in row))
    Console(width=200).print(table)

    how = f"{repeats} steps of each in turn{', processor time' if cases[0].cpu_time else ''}"
    write_markdown(title, how, columns, rows, out, device=cases[0].device)


def write_markdown(
    title: str, how: str, columns: Sequence[str], rows: Sequence[Sequence[str]], out: Path, *, device: str = "cpu"
) -> None:
    """Write a table to ``out``, with the command, the machine, the versions and how it was measured."""
    machine = torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()} CPU"
    about = (
        f"{machine}, {torch.get_num_threads()} threads; torch {torch.__version__}, torch_brain {version('torch_brain')}"
    )
    lines = [f"# {title}", "", "```", f"python {' '.join(sys.argv)}", "```", "", f"{about}. {how}.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
