"""Does anything that a user can type, or a file can hold, end in a traceback? Run with --help.

Overrides: random settings of random jobs, with values that fit, nearly fit or do not fit at all. Files: recordings,
models, embeddings and settings with bytes flipped, cut off, of wrong types, or with parts missing. Each case ends in a
result or in one NeuroBridgeError.
"""

import contextlib
import io
import json
import random
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import h5py
import numpy as np
from small_workspace import JOBS, make_shown, make_workspace, settings

VALUES = [
    "0", "1", "-1", "2", "0.5", "1e-3", "1e9", "nan", "inf", "null", "true", "false", "", " ", "[]", "{}", "[1,2]",
    "[a,b]", "{a: 1}", "a", "é", "../..", "/", "'", '"', "[", "${seed}", "${oc.env:HOME}", "???", "%s", "\\", "auto",
    "cpu", "cuda:9", "binned", "trial", "continuous", "0x10", "1_000", "99999999999999999999", "--help", "a=b",
]  # fmt: skip


def random_arguments(job: str, names: list[str], workspace: Path, run: Path, rng: random.Random) -> list[str]:
    """Settings of a job that works, with some of them replaced, doubled or misspelt."""
    arguments = settings(job, workspace, run)
    for _ in range(rng.choice([1, 1, 2, 3])):
        name, value = rng.choice(names), rng.choice(VALUES)
        if rng.random() < 0.1:
            at = rng.randrange(len(name))
            name = name[:at] + rng.choice("xyz._ +~-=") + name[at + 1 :]
        arguments = [a for a in arguments if a.partition("=")[0] != name] + [f"{name}={value}"]
    return arguments


def setting_names(job: str) -> list[str]:
    """Every setting of a job, dotted, and its groups."""
    from neurobridge_tb.configs.catalog import JOBS as KINDS
    from neurobridge_tb.configs.listing import setting_lines

    kind = KINDS[job.replace("-", "_")]
    lines = ((part, text.partition("=")[0]) for part, some in setting_lines(kind).items() for text, _ in some)
    return [f"{part}.{name}" if part and not name.startswith(f"{part}.") else name for part, name in lines] + [
        *kind.groups
    ]


def outcome_of(call: Callable[[], object]) -> str | None:
    """A traceback, or None where the call ends as it should: with a result, or with an error on purpose."""
    from neurobridge_tb.errors import NeuroBridgeError

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            call()
    except NeuroBridgeError:
        return None
    except Exception:  # whatever it is, it is what is looked for
        return traceback.format_exc()
    return None


def fuzz_overrides(count: int, workspace: Path, rng: random.Random, *, run: bool) -> Iterator[tuple[str, str | None]]:
    """Random overrides: their settings are settled, and with ``run`` the job is done as well."""
    from importlib import import_module

    from neurobridge_tb.engine.config import compose_config

    names = {job: setting_names(job) for job in JOBS}
    for k in range(count):
        job = rng.choice(list(JOBS))
        folder = workspace / "fuzzed" / str(k)
        arguments = random_arguments(job, names[job], workspace, folder, rng)

        def call(job: str = job, arguments: list[str] = arguments) -> None:
            config = compose_config(job, arguments)
            if run:
                module = job.replace("-", "_")
                getattr(import_module(f"neurobridge_tb.jobs.{module}"), module)(config)

        yield f"{job} {' '.join(arguments)}", outcome_of(call)
        shutil.rmtree(folder, ignore_errors=True)


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file in place, in one of the ways that files are damaged; returns how."""
    if path.suffix == ".h5" and rng.random() < 0.6:
        return _damage_structure(path, rng)
    content = bytearray(path.read_bytes())
    kind = rng.choice(["cut", "flip", "zero", "empty", "other"])
    if kind == "cut":
        del content[rng.randrange(len(content)) :]
    elif kind == "flip":
        for _ in range(rng.choice([1, 8, 200])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        at = rng.randrange(len(content))
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    else:
        content = bytearray(b"" if kind == "empty" else rng.choice([b"{", b"[]", b"null", b"\xff\xfe", b"a: b: c"]))
    path.write_bytes(bytes(content))
    return kind


def _damage_structure(path: Path, rng: random.Random) -> str:
    with h5py.File(path, "r+") as file:
        places: list[str] = []
        file.visit(places.append)
        place = rng.choice(places)
        kind = rng.choice(["missing", "type", "shape", "values", "attribute"])
        node = file[place]
        if kind == "missing":
            del file[place]
        elif kind == "attribute" and len(node.attrs):
            name = rng.choice(list(node.attrs))
            node.attrs[name] = rng.choice(["", "other", -1, np.nan, "Data"])
        elif isinstance(node, h5py.Dataset) and node.shape:
            values = node[:]
            del file[place]
            if kind == "type":
                values = rng.choice(
                    [values.astype("S8"), np.zeros(values.shape, np.complex64), np.zeros(len(values), bool)]
                )
            elif kind == "shape":
                values = rng.choice([values[:-1], values[:0], values[None], np.concatenate([values, values])])
            elif values.dtype.kind in "fiu":
                values = np.array(values, dtype=float)
                values[rng.randrange(len(values))] = rng.choice([np.nan, np.inf, -1e30, -1, 1e30])
            file.create_dataset(place, data=values)
        return f"{kind} {place}"


def fuzz_files(count: int, workspace: Path, rng: random.Random) -> Iterator[tuple[str, str | None]]:
    """Damaged files, and who reads them: validation and training, loading of models, embeddings and settings."""
    from neurobridge_tb import NeuroBridgeModel
    from neurobridge_tb.alignment.cache import EmbeddingCache
    from neurobridge_tb.datasets.validation.examination import examine
    from neurobridge_tb.engine.config import compose_config
    from neurobridge_tb.jobs.align import align
    from neurobridge_tb.jobs.pretrain import pretrain

    def train(folder: Path) -> None:
        examine(folder / "shown" / "tvsd" / "tiny_norm.h5")
        small = ["model=tiny", "dataset=tvsd", f"dataset.root={folder}/shown", "trainer.max_epochs=1", "device=cpu"]
        pretrain(compose_config("pretrain", [*small, f"run_dir={folder}/run", "trainer.enable_progress_bar=false"]))

    def go_on(folder: Path) -> None:
        align(
            compose_config("align", [*settings("align", folder, folder / "run"), "stage1.epochs=1", "stage2.epochs=0"])
        )

    readers: dict[str, Callable[[Path], object]] = {
        "shown/tvsd/tiny_norm.h5": train,
        "embeddings.h5": lambda f: EmbeddingCache.load(f / "embeddings.h5"),
        "shown_model/config.json": lambda f: NeuroBridgeModel.load_pretrained(f / "shown_model"),
        "shown_model/model.safetensors": lambda f: NeuroBridgeModel.load_pretrained(f / "shown_model"),
        "run/config.yaml": go_on,
        "run/sources.json": go_on,
        "run/checkpoints/last.ckpt": go_on,
    }
    sound = workspace / "sound"
    make_shown(sound)
    go_on(sound)
    for k in range(count):
        name = rng.choice([*readers, *["shown/tvsd/tiny_norm.h5"] * 4])
        folder = workspace / "damaged" / str(k)
        shutil.copytree(
            sound, folder, ignore=None if name.startswith("run") else shutil.ignore_patterns("run", "images")
        )
        how = damage(folder / name, rng)
        yield f"{name}: {how}", outcome_of(lambda name=name, folder=folder: readers[name](folder))
        shutil.rmtree(folder, ignore_errors=True)


@click.command(context_settings={"show_default": True})
@click.option("--overrides", default=2000, help="Random overrides that are settled.")
@click.option("--runs", default=50, help="Random overrides of jobs that are done as well.")
@click.option("--files", default=500, help="Damaged files.")
@click.option("--seed", default=0)
def main(overrides: int, runs: int, files: int, seed: int) -> None:
    """Print each case that ends in a traceback, and how many there were."""
    rng, counts = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        make_workspace(workspace)
        tries = {
            "overrides": fuzz_overrides(overrides, workspace, rng, run=False),
            "jobs with random overrides": fuzz_overrides(runs, workspace, rng, run=True),
            "damaged files": fuzz_files(files, workspace, rng),
        }
        for kind, cases in tries.items():
            for case, trace in cases:
                counts[kind] += 1
                if counts[kind] % 100 == 0:
                    print(f"{counts[kind]} {kind} …", flush=True)
                if trace is not None:
                    counts[f"{kind} that end in a traceback"] += 1
                    print(json.dumps({"case": case, "traceback": trace.splitlines()[-6:]}, indent=1), flush=True)
    for name, count in counts.items():
        print(f"{count} {name}")


if __name__ == "__main__":
    main()
