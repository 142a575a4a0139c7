"""The whole main job on simulated data: each stage is one command, run in its own process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from neurobridge_tb.engine.run_lock import lock_run
from neurobridge_tb.errors import NeuroBridgeError
from neurobridge_tb.files import write_json
from neurobridge_tb.simulation.shown_images import class_photos

_SIZES = {
    "pretrain": ["model=laptop", "optimizer.lr=1e-3", "optimizer.factor_lr=0", "trainer.max_epochs=4"],
    "train-decoder": ["steps=400"],
}
_TINY_SIZES = {
    "simulate": ["--concepts", "100", "--per-concept", "3", "--repeats", "4"],
    "pretrain": ["model=tiny", "trainer.max_epochs=1"],
    "align": ["readout.dim_hidden=64", "stage1.epochs=1", "stage2.epochs=1"],
    "evaluate": ["resamples=100", "permutations=100"],
    "train-decoder": ["steps=4"],
    "reconstruct": ["flow.steps=2", "flow.candidates=1", "judge.image_size=96"],
}
_NEUROBRIDGE = [sys.executable, "-m", "neurobridge_tb.cli"]


class StageError(NeuroBridgeError):
    """A stage of the demo failed; its own message stands above."""


def stages(workspace: Path, images: Path | None, seed: int, tiny: bool = False) -> dict[str, list[str]]:
    """The command of each stage, as a user would type it.

    Args:
        workspace: Folder of everything that is made.
        images: Folder of photos to show to the virtual monkey, or None for drawn images.
        seed: Seed of simulation and trainings.
        tiny: Sizes of a smoke test: everything runs, nothing is learnt. Default False.
    """
    w = workspace
    data = ["dataset=tvsd", f"dataset.root={w}/processed", f"seed={seed}"]
    shown = w / "images" if images is None else class_photos(images, w / "photos.json")
    embeddings = f"{w}/embeddings/efficientnet_lite2.h5"
    commands = {
        "simulate": ["neurobridge", "simulate", str(w), "--seed", str(seed)]
        + ([] if images is None else ["--images", str(shown)]),
        "prepare": ["brainsets", "prepare", "tvsd", "--single", "monkeyF_norm", "--raw-dir", f"{w}/raw"]
        + ["--processed-dir", f"{w}/processed"],
        "pretrain": ["neurobridge", "pretrain", *data, f"run_dir={w}/runs/pretrain"],
        "embed": ["neurobridge", "embed", f"images={shown}", f"out={embeddings}", "encoder=timm:tf_efficientnet_lite2"]
        + ["image_size=96", "layers=[blocks.1@4x4,blocks.2@4x4,blocks.3@4x4,blocks.4@4x4,final]"],
        "align": ["neurobridge", "align", *data, f"embeddings={embeddings}", f"pretrained={w}/runs/pretrain/model"]
        + [f"run_dir={w}/runs/align"],
        "evaluate": ["neurobridge", "evaluate", *data, f"embeddings={embeddings}", f"aligned={w}/runs/align"]
        + [f"run_dir={w}/runs/evaluate"],
        "train-decoder": ["neurobridge", "train-decoder", f"images={shown}", f"embeddings={embeddings}"]
        + [f"run_dir={w}/runs/decoder", f"exclude={w}/processed/tvsd/monkeyF_norm.h5", f"seed={seed}"],
        "reconstruct": ["neurobridge", "reconstruct", *data, f"embeddings={embeddings}", f"aligned={w}/runs/align"]
        + [f"images={shown}", f"run_dir={w}/runs/reconstruct"],
        "report": ["neurobridge", "report", str(w)],
    }
    if images is None:
        del commands["train-decoder"]  # weights for drawn images come with the package
    else:
        commands["reconstruct"].append(f"flow.weights={w}/runs/decoder")
    sizes = _TINY_SIZES if tiny else _SIZES
    return {stage: [*command, *sizes.get(stage, [])] for stage, command in commands.items()}


def run_demo(workspace: Path, images: Path | None, seed: int, tiny: bool = False) -> Path:
    """Run every stage that has not been done in this workspace; returns the report's path.

    Args:
        workspace: Folder; a demo that was cut goes on where it stopped.
        images: Folder of photos, or None for drawn images.
        seed: Seed of simulation and trainings.
        tiny: See :func:`stages`.

    Raises:
        StageError: A stage failed.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    lock_run(workspace)
    log = workspace / "stages.json"
    done = _done_before(log)
    commands = stages(workspace, images, seed, tiny)
    for number, (stage, command) in enumerate(commands.items(), start=1):
        line = " ".join(command)
        settings = [argument.replace(str(workspace), "WORKSPACE") for argument in command]  # wherever it has been moved
        if stage != "report" and any(d["stage"] == stage and settings == d["settings"] for d in done):
            print(f"[{number}/{len(commands)}] {stage}: done before", flush=True)
            continue
        print(f"[{number}/{len(commands)}] {line}", flush=True)
        seconds, peak = _run(command)
        print(f"      {seconds:.0f} s, at most {peak:.0f} MB of memory", flush=True)
        done = [d for d in done if d["stage"] != stage]
        noted = {"stage": stage, "command": line, "settings": settings}
        done.append({**noted, "seconds": seconds, "peak_memory_mb": peak})
        write_json(log, done)
    total, peak = sum(d["seconds"] for d in done), max(d["peak_memory_mb"] for d in done)
    print(f"All stages: {total:.0f} s, at most {peak:.0f} MB of memory")
    return workspace / "report" / "index.html"


def _done_before(log: Path) -> list[dict[str, Any]]:
    """Notes on the stages that were done; none where the file cannot be read, so that they are done again."""
    try:
        noted = json.loads(log.read_text(encoding="utf-8"))
        return [{"settings": None, **d} for d in noted if {"stage", "command", "seconds", "peak_memory_mb"} <= d.keys()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        print(f"{log} cannot be read ({error}): all stages are done again.", flush=True)
        return []


def _run(command: list[str]) -> tuple[float, float]:
    """Run a command; returns seconds and peak memory in MB, of the process and its children together."""
    programs = Path(sys.executable).parent
    program = _NEUROBRIDGE if command[0] == "neurobridge" else [str(programs / command[0])]
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"  # `brainsets` looks for `uv` there
    began = time.monotonic()
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "PATH": path}
    process = subprocess.Popen([*program, *command[1:]], env=environment)  # noqa: S603 (no shell, our own commands)
    watch = _PeakMemory(process.pid)
    watch.start()
    try:
        code = process.wait()
    except BaseException:  # the demo is stopped: no stage goes on without it
        process.terminate()
        process.wait()
        raise
    if code < 0:
        why = ", as systems do that lack memory" if -code == getattr(signal, "SIGKILL", None) else ""
        raise StageError(f"`{' '.join(command)}` was ended by {signal.Signals(-code).name}{why}; run again to go on.")
    if code:
        raise StageError(f"`{' '.join(command)}` ended with exit code {code}; its message stands above.")
    return time.monotonic() - began, watch.stop()


class _PeakMemory(threading.Thread):
    """Sample the resident memory of a process tree twice a second."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.peak, self.done = pid, 0.0, threading.Event()

    def run(self) -> None:
        import psutil

        while not self.done.wait(0.5):
            try:
                parent = psutil.Process(self.pid)
                tree = [parent, *parent.children(recursive=True)]
                self.peak = max(self.peak, sum(p.memory_info().rss for p in tree) / 1e6)
            except psutil.Error:
                continue

    def stop(self) -> float:
        self.done.set()
        self.join()
        return self.peak
