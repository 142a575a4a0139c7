"""A tiny workspace with invented results, for tests of figures and report."""

import json
from pathlib import Path

import h5py
import numpy as np

N_IMAGES = 30
HEAD = {"dataset": "toy/monkey", "simulated": True}


def masked_example(bins: int, units: int = 30, counts: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    values = (rng.poisson(2, (bins, units)) if counts else rng.normal(size=(bins, units))).astype(np.float32)
    values[:, 1] = np.nan
    keep = np.ones((bins, units), bool)
    keep[:, ::3] = False
    target = ~keep & np.isfinite(values)
    predicted = np.where(target, values + 0.1, np.nan).astype(np.float32)
    area = np.array(["V1", "V4", "IT"])[np.arange(units) * 3 // units]
    return {
        "values": values, "keep": keep, "target": target, "predicted": predicted, "area": area,
        "scheme": np.array("neuron"),
    }  # fmt: skip


def write_pretrain(workspace: Path, bins: int = 1) -> None:
    run = workspace / "runs" / "pretrain"
    run.mkdir(parents=True)
    _json(run / "metrics.json", {
        **HEAD, "command": "neurobridge pretrain", "seconds": 75.0,
        "rows": [{"scheme": "neuron", "metric": "masked MSE (z units)", "model": 0.4321,
                  "baselines": {"training mean": 1.0, "ridge from kept units": 0.5}}],
    })  # fmt: skip
    lines = ["epoch,step,train/loss,val/loss,val/loss/neuron"]
    for epoch in range(5):
        lines += [f"{epoch},{epoch},{1 / (epoch + 1)},,", f"{epoch},{epoch},,{2 / (epoch + 1)},{3 / (epoch + 1)}"]
    (run / "metrics.csv").write_text("\n".join(lines))
    (run / "config.yaml").write_text("seed: 17\n")
    np.savez(run / "masked_example.npz", **masked_example(bins))


def write_align(workspace: Path) -> None:
    run = workspace / "runs" / "align"
    run.mkdir(parents=True)
    (run / "metrics.csv").write_text("epoch,step,train/loss,val/loss,val/top5\n0,1,2.0,,\n0,1,,2.5,0.4\n")
    forgetting = {"scheme": "neuron", "metric": "masked MSE (z units)", "before": 0.4, "after": 0.45}
    _json(run / "metrics.json", {**HEAD, "command": "neurobridge align", "forgetting": [forgetting]})


def write_evaluate(workspace: Path) -> None:
    run = workspace / "runs" / "evaluate"
    run.mkdir(parents=True)

    def score(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    rows = [
        {"model": model, "trials": trials, "direction": direction, "top1": score(top5 / 2), "top5": score(top5)}
        for model, top5 in (("ridge", 0.5), ("stage 2", 0.75))
        for trials in ("repeat average", "single trial")
        for direction in ("neural to image", "image to neural")
    ]
    _json(run / "retrieval.json", {
        **HEAD, "command": "neurobridge evaluate", "n_candidates": 100, "rows": rows,
        "chance": {"top1": 0.01, "top5": 0.05},
    })  # fmt: skip


def write_reconstruct(
    workspace: Path, image_id: str = "cat/cat_{:02d}.jpg", samples: int = 2, area: str | None = None
) -> None:
    run = workspace / "runs" / ("reconstruct" if area is None else f"reconstruct_{area}")
    run.mkdir(parents=True)
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (N_IMAGES, 8, 8, 3), dtype=np.uint8)
    with h5py.File(run / "reconstructions.h5", "w") as file:
        file["image_id"] = [image_id.format(i) for i in range(N_IMAGES)]
        file["seen"] = seen
        file["nearest"] = np.roll(seen, 1, axis=0)[:, None]
        noise = rng.integers(-40, 40, (N_IMAGES, samples, 8, 8, 3))
        file["cosine"] = np.linspace(-1, 1, N_IMAGES)
        file["flow"] = np.clip(seen[:, None] + noise, 0, 255).astype(np.uint8)
    metrics = {"nearest": (0.1, 0.6), "flow": (0.3, 0.8)}
    _json(run / "metrics.json", {
        **HEAD, "command": "neurobridge reconstruct", "areas": None if area is None else [area],
        "rows": [{"backend": name, "metrics": {"PixCorr": pix, "two-way toy": two},
                  "unavailable": {"two-way CLIP": "needs some file"}} for name, (pix, two) in metrics.items()],
        "chance": {"two-way": 0.5}, "predicted embedding": {"cosine to true": 0.712},
    })  # fmt: skip


def write_all(workspace: Path, bins: int = 1) -> None:
    write_pretrain(workspace, bins)
    write_align(workspace)
    write_evaluate(workspace)
    write_reconstruct(workspace)
    stages = [{"stage": "simulate", "command": "neurobridge simulate demo", "seconds": 61.0, "peak_memory_mb": 900}]
    _json(workspace / "stages.json", stages)


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))
