"""A training step of upstream's POYO with its own rotation, with ours, and with none: ``python benchmarks/rotary.py``.

None computes something else: it bounds what a rotation can gain. All in turn in one process, same weights, inputs
and order; processor time, so that other load on the machine does not count. Run with OMP_NUM_THREADS=1.
"""

import time
from pathlib import Path
from statistics import median

import torch
from torch_brain.models import POYO
from torch_brain.nn import RotaryTimeEmbedding

from neurobridge_tb.nn.rotary import rotate

RESULT = Path(__file__).parent / "results" / "rotary.md"
PLAIN = RotaryTimeEmbedding.rotate
SIZES = {  # upstream's configs of examples/poyo, and windows in a batch
    "1.3M, batch 128": (128, dict(num_latents_per_step=16, dim=64, depth=6, cross_heads=2)),
    "1.3M, batch 8": (8, dict(num_latents_per_step=16, dim=64, depth=6, cross_heads=2)),
    "11.8M, batch 16": (16, dict(num_latents_per_step=32, dim=128, depth=24, cross_heads=4)),
}
SPIKES, UNITS, QUERIES, REPEATS = 1000, 100, 100, 5


def ours(x, rotary_emb, unsqueeze_dim=2):
    return rotate(x, rotary_emb.unsqueeze(unsqueeze_dim))


def none(x, rotary_emb, unsqueeze_dim=2):
    return x


def batch_of(model, n):
    torch.manual_seed(0)
    index = torch.arange(model.num_latents_per_step).repeat(8)
    times = (torch.arange(8) / 8 + 1 / 16).repeat_interleave(model.num_latents_per_step)
    return {
        "input_unit_index": torch.randint(1, UNITS + 1, (n, SPIKES)),
        "input_timestamps": torch.rand(n, SPIKES),
        "input_token_type": torch.zeros(n, SPIKES, dtype=torch.int64),
        "input_mask": torch.ones(n, SPIKES, dtype=torch.bool),
        "latent_index": index.expand(n, -1),
        "latent_timestamps": times.expand(n, -1),
        "session_index": torch.ones(n, dtype=torch.int64),
        "output_timestamps": torch.rand(n, QUERIES),
    }


def step(model, batch, rotation):
    """Processor time in s of forward and backward, the output, and the gradients."""
    RotaryTimeEmbedding.rotate = staticmethod(rotation)
    model.zero_grad()
    begun = time.process_time()
    output = model(**batch)
    output.square().mean().backward()
    seconds = time.process_time() - begun
    return seconds, output.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def main():
    lines = [
        "# A training step of POYO with upstream's rotation and with ours\n",
        "```\nOMP_NUM_THREADS=1 python benchmarks/rotary.py\n```\n",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread. Windows of {SPIKES} spikes, {REPEATS} "
        "steps (forward and backward) of each in turn, medians of processor time.\n",
        "| POYO | upstream ms | ours ms | times as fast | with none | largest difference of outputs | of gradients |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, (n, size) in SIZES.items():
        torch.manual_seed(0)
        model = POYO(
            sequence_length=1.0, latent_step=0.125, dim_out=2, dim_head=64, self_heads=8,
            ffn_dropout=0, lin_dropout=0, atn_dropout=0, **size,
        )  # fmt: skip
        model.unit_emb.initialize_vocab([f"u{i}" for i in range(UNITS)])
        model.session_emb.initialize_vocab(["session"])
        batch = batch_of(model, n)
        rotations = (PLAIN, ours, none)
        first = [step(model, batch, rotation) for rotation in rotations]  # these warm up
        times = [[step(model, batch, rotation)[0] for rotation in rotations] for _ in range(REPEATS)]
        theirs_ms, ours_ms, none_ms = (1000 * median(column) for column in zip(*times, strict=True))
        (_, a, grads_a), (_, b, grads_b), _ = first
        gradient = max((x - y).abs().max().item() for x, y in zip(grads_a, grads_b, strict=True))
        lines.append(
            f"| {name} | {theirs_ms:,.0f} | {ours_ms:,.0f} | **{theirs_ms / ours_ms:.2f}** | "
            f"{theirs_ms / none_ms:.2f} | {(a - b).abs().max():.1e} | {gradient:.1e} |"
        )
        print(lines[-1])

    torch.manual_seed(0)
    x = torch.randn(16, 1024, 8, 64, requires_grad=True)
    embedding = RotaryTimeEmbedding(64, 32, t_min=1e-4, t_max=2.0627)(torch.rand(16, 1024))
    rotations = []
    for rotation in (PLAIN, ours):
        seconds = []
        for _ in range(REPEATS):
            begun = time.process_time()
            torch.autograd.grad(rotation(x, embedding).sum(), x)
            seconds.append(time.process_time() - begun)
        rotations.append(1000 * median(seconds))
    lines.append(
        f"\nThe rotation alone, forward and backward, of (16, 1024, 8, 64): {rotations[0]:.0f} and "
        f"{rotations[1]:.0f} ms.\n"
    )
    RESULT.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
