"""What `brainsets prepare tvsd` costs: seconds, memory, and speed beside plain reading.

Random raw files of TVSD's layout are made: a full-size norm file, and trial files of a size of your choice in several
chunk layouts (how the published files are chunked is not documented). Each measurement has a process of its own.

    python benchmarks/tvsd_pipeline.py                  # 2 GB trial files
    python benchmarks/tvsd_pipeline.py --trials-gb 20   # as large as there is room for

Writes benchmarks/results/tvsd_pipeline.md.
"""

import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import click
import h5py
import numpy as np

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "brainsets_pipelines" / "tvsd" / "pipeline.py"
N_CONCEPTS, PER_CONCEPT, N_TEST, N_REPEATS, N_SAMPLES, N_CHANNELS = 1854, 12, 100, 30, 300, 1024
N_TRAIN = N_CONCEPTS * PER_CONCEPT
BYTES_A_PRESENTATION = N_SAMPLES * N_CHANNELS * 8


def layouts(n: int) -> dict[str, dict]:
    """Options of h5py by the name of a layout, for ``n`` presentations."""
    return {
        "chunks (1, 16, 1024)": {"chunks": (1, 16, N_CHANNELS)},
        "not chunked": {},
        "chosen by h5py": {"chunks": True},
        "chunks across presentations": {"chunks": (1, n, 8)},
        "chunks (1, 16, 1024), gzip": {"chunks": (1, 16, N_CHANNELS), "compression": "gzip", "compression_opts": 3},
    }


def main_files(folder: Path) -> None:
    """The norm file in full size, image names, channel mapping."""
    from neurobridge_tb.simulation.matlab_v73 import create_double, matlab_file
    from neurobridge_tb.simulation.tvsd_files import write_image_list, write_mapping

    rng = np.random.default_rng(0)
    names = [[f"concept{c:04d}/concept{c:04d}_{i:02d}b.jpg" for i in range(PER_CONCEPT + 1)] for c in range(N_CONCEPTS)]
    train = [name for concept in names for name in concept[:PER_CONCEPT]]
    write_image_list(folder / "_logs" / "things_imgs.mat", train, [concept[-1] for concept in names[:N_TEST]])
    write_mapping(folder / "_logs" / "1024chns_mapping_20220105.mat", rng.permutation(N_CHANNELS) + 1)
    pairs = N_REPEATS * (N_REPEATS - 1) // 2
    shapes = {"train_MUA": (N_TRAIN, N_CHANNELS), "test_MUA_reps": (N_REPEATS, N_TEST, N_CHANNELS)}
    shapes |= {"SNR_max": (N_CHANNELS, 1), "lats": (4, N_CHANNELS), "reliab": (pairs, N_CHANNELS)}
    with matlab_file(folder / "THINGS_normMUA.mat") as file:
        for name, shape in shapes.items():
            create_double(file, name, rng.standard_normal(shape))


def trials_file(path: Path, n: int, options: dict) -> None:
    """``n`` presentations on four days; every eighth shows a test image."""
    from neurobridge_tb.simulation.matlab_v73 import matlab_file

    rng = np.random.default_rng(1)
    row = np.arange(n)
    is_test = row % 8 == 0
    train, test = np.where(is_test, 0, row % N_TRAIN + 1), np.where(is_test, row // 8 % N_TEST + 1, 0)
    table = np.stack([row // 4 + 1, train, test, np.ones(n), row % 4 + 1, row * 4 // n + 1])
    with matlab_file(path) as file:
        file["tb"] = np.arange(-100.0, 200.0)[:, None]
        file["ALLMAT"] = table.astype(np.float64)
        traces = file.create_dataset("ALLMUA", (N_SAMPLES, n, N_CHANNELS), "<f8", **options)
        if traces.chunks and traces.chunks[1] > 64:
            slabs = ((np.s_[:, :, c : c + 8], (N_SAMPLES, n, min(8, N_CHANNELS - c))) for c in range(0, N_CHANNELS, 8))
        else:
            slabs = ((np.s_[:, p : p + 16], (N_SAMPLES, min(16, n - p), N_CHANNELS)) for p in range(0, n, 16))
        for slab, shape in slabs:
            traces[slab] = 3 + rng.standard_normal(shape, dtype=np.float32)


# In the measuring process


def load_pipeline(root: Path, variant: str):
    """The pipeline with all its imports done, as upstream's runner makes it, and its module's functions."""
    from torch_brain.pipeline import runner

    cls = runner.import_pipeline_cls_from_file(PIPELINE)
    args = cls.parser.parse_args(["--reprocess"])
    (root / "processed" / "tvsd").mkdir(parents=True, exist_ok=True)
    pipeline = cls(root / "raw" / "tvsd", root / "processed" / "tvsd", args)
    pipeline.update_status = lambda status: None
    return pipeline, cls.get_manifest.__globals__


def resident_gb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def measure_pipeline(root: Path, variant: str) -> dict[str, float]:
    """Seconds, and the highest memory above what the interpreter has after its imports."""
    pipeline, _ = load_pipeline(root, variant)
    before, start = resident_gb(), time.perf_counter()
    manifest = pipeline.get_manifest(root / "raw" / "tvsd", pipeline.args)
    item = next(manifest.itertuples())
    pipeline.process(pipeline.download(item))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": seconds, "peak_gb": peak - before}


def measure_reading(root: Path, rounds: int = 5) -> dict[str, float]:
    """Plain h5py over the slabs that the pipeline reads, and the pipeline, in turns; the best of each.

    ``stream`` is what grows with the file: reading, binning, writing and normalising. ``whole`` has all the rest too.
    """
    pipeline, functions = load_pipeline(root, "trials")
    path = root / "raw" / "tvsd" / "monkeyF" / "THINGS_MUA_trials.mat"
    stages = {name: functions[name] for name in ("bin_trials", "normalise")}
    seconds: dict[str, list[float]] = {"plain": [], "whole": [], "stream": []}

    def timed(name: str):
        def call(*arguments, **options):
            start = time.perf_counter()
            result = stages[name](*arguments, **options)
            seconds["stream"][-1] += time.perf_counter() - start
            return result

        return call

    functions.update({name: timed(name) for name in stages})
    for _ in range(rounds):
        start = time.perf_counter()
        with h5py.File(path) as file:
            traces = file["ALLMUA"]
            shape = functions["slab_shape"](traces, 10)
            for p, c, t in product(*(range(0, traces.shape[axis], shape[axis]) for axis in (1, 2, 0))):
                traces[t : t + shape[0], p : p + shape[1], c : c + shape[2]]
            gigabytes = traces.size * traces.dtype.itemsize / 1e9
        seconds["plain"].append(time.perf_counter() - start)

        start = time.perf_counter()
        seconds["stream"].append(0.0)
        pipeline.process(("F", "trials"))
        seconds["whole"].append(time.perf_counter() - start)
    speed = {f"{name}_gb_s": gigabytes / min(times) for name, times in seconds.items()}
    return {
        "slab": shape,
        "slab_mb": 8 * math.prod(shape) / 1e6,
        "fixed_s": min(seconds["whole"]) - min(seconds["stream"]),
        **speed,
    }


def measure_windows(root: Path, variant: str, draws: int = 2000) -> dict[str, float]:
    """Median milliseconds of ``Dataset[index]`` with the values and the image id read, at random presentations."""
    from neurobridge_tb._upstream import DatasetIndex
    from neurobridge_tb.datasets import Tvsd

    dataset = Tvsd(root / "processed", variant=variant)
    (recording,) = dataset.recording_ids
    intervals = dataset.get_sampling_intervals("train")[recording]
    times = []
    for k in np.random.default_rng(0).integers(len(intervals.start), size=draws):
        index = DatasetIndex(recording, float(intervals.start[k]), float(intervals.end[k]))
        start = time.perf_counter()
        window = dataset[index]
        window.mua.value, window.presentations.image_id  # noqa: B018
        times.append(1000 * (time.perf_counter() - start))
    value = h5py.File(root / "processed" / "tvsd" / f"{recording}.h5")["mua/value"]
    return {"window_ms": statistics.median(times), **{f"{k}_ms": v for k, v in compressed(root, value).items()}}


def compressed(root: Path, value: h5py.Dataset, draws: int = 300) -> dict[str, float]:
    """Median milliseconds to read the rows of one presentation: as stored, and from a copy with gzip."""
    rows = 1 if value.shape[0] == N_TRAIN + N_TEST * N_REPEATS else 30
    n = min(len(value) // rows, draws)
    path = root / "gzip.h5"
    times: dict[str, list[float]] = {"stored": [], "gzip": []}
    with h5py.File(path, "w") as file:
        packed = file.create_dataset(
            "value", data=value[: n * rows], chunks=(rows, value.shape[1]), compression="gzip", compression_opts=1
        )
        for k in np.random.default_rng(1).permutation(n):
            for name, dataset in (("stored", value), ("gzip", packed)):
                start = time.perf_counter()
                dataset[k * rows : (k + 1) * rows]
                times[name].append(1000 * (time.perf_counter() - start))
    path.unlink()
    return {name: statistics.median(values) for name, values in times.items()}


def apart(function: str, *arguments: str | Path) -> dict:
    """Call a function of this file in a new process."""
    command = [sys.executable, __file__, "--call", json.dumps([function, *map(str, arguments)])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@click.command()
@click.option("--trials-gb", default=2.0, show_default=True, help="Size of each trial file; the real one has 62.")
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where to; default: a temporary one.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "results" / "tvsd_pipeline.md")
@click.option("--call", default=None, hidden=True)
def run(trials_gb: float, folder: Path | None, out: Path, call: str | None) -> None:
    """Measure the pipeline on random raw files of TVSD's layout, and write a table."""
    if call:
        name, root, *rest = json.loads(call)
        print(json.dumps(globals()[name](Path(root), *rest)))
        return
    lines: list[str] = []

    def say(line: str = "") -> None:
        lines.append(line)
        print(line, flush=True)

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary)
        monkey = root / "raw" / "tvsd" / "monkeyF"
        main_files(monkey)
        norm, windows = apart("measure_pipeline", root, "norm"), apart("measure_windows", root, "norm")
        say("# `brainsets prepare tvsd`: time and memory\n")
        versions = f"Python {platform.python_version()} and h5py {h5py.__version__}"
        say("Random data in the raw files' layout, not a recording. Made by `benchmarks/tvsd_pipeline.py` on")
        say(f"{os.cpu_count()} cores with {versions}. The raw files had just been written, so they came from")
        say("the page cache. Memory: highest resident set, less that after all imports.\n")
        say(f"## norm ({N_TRAIN:,} + {N_TEST * N_REPEATS:,} rows x {N_CHANNELS:,} float64)\n")
        say("| | measured | bar |")
        say("| --- | --- | --- |")
        say(f"| prepared in | {norm['seconds']:.1f} s | 60 s |")
        say(f"| memory | {norm['peak_gb']:.2f} GB | 1.5 GB |")
        say(f"| `Dataset[index]`, values and image id read, median | {windows['window_ms']:.2f} ms | 1 ms |")

        n = round(trials_gb * 1e9 / BYTES_A_PRESENTATION)
        say(f"\n## trials ({n:,} presentations, {n * BYTES_A_PRESENTATION / 1e9:.1f} GB; the real file has 62 GB)\n")
        say("Speed beside plain h5py that reads the same slabs in the same order and drops them, in turns, in one")
        say(
            "process; the best of five each. Pipeline: reading, binning, writing and normalising. The rest (image names"
        )
        say("above all) takes the same seconds whatever the size. Bars: 60 % of the speed, memory 1 GB.\n")
        say("| layout of ALLMUA | slab | plain h5py | pipeline | the rest | memory |")
        say("| --- | --- | --- | --- | --- | --- |")
        for name, options in layouts(n).items():
            trials_file(monkey / "THINGS_MUA_trials.mat", n, options)
            cost, speed = apart("measure_pipeline", root, "trials"), apart("measure_reading", root)
            say(
                f"| {name} | {tuple(speed['slab'])}, {speed['slab_mb']:.0f} MB | {speed['plain_gb_s']:.2f} GB/s "
                f"| {speed['stream_gb_s']:.2f} GB/s, {100 * speed['stream_gb_s'] / speed['plain_gb_s']:.0f} % "
                f"| {speed['fixed_s']:.1f} s | {cost['peak_gb']:.2f} GB |"
            )
        window, stored, packed = apart("measure_windows", root, "trials").values()
        say(f"\n`Dataset[index]`, values and image id read: median {window:.2f} ms (bar: 1 ms). The 30 rows of a")
        say(f"presentation alone: {stored:.2f} ms as stored, {packed:.2f} ms from a copy with gzip; so they are stored")
        say("uncompressed.")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run()
