"""From images to a complete simulated TVSD recording on disk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import read_json, write_json
from neurobridge_tb.simulation.procedural import write_procedural_images
from neurobridge_tb.simulation.recording import check_design, draw_design, record
from neurobridge_tb.simulation.shown_images import choose_photos, load_images
from neurobridge_tb.simulation.tvsd_files import write_image_list, write_mapping, write_norm_file, write_trials_file
from neurobridge_tb.simulation.ventral_stream import N_CHANNELS, VentralStream

_STIMULI, _DESIGN, _RECORDING, _MAPPING, _TRACES = range(10, 15)  # independent streams of random numbers


def simulate_tvsd(
    out_dir: str | Path,
    *,
    monkey: str = "F",
    images_dir: str | Path | None = None,
    n_concepts: int = 250,
    images_per_concept: int = 12,
    n_test: int = 100,
    n_repeats: int = 30,
    image_size: int = 64,
    noise: float = 1.0,
    difficulty: float = 0.0,
    seed: int = 0,
    trials: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Simulate one monkey's recording and write it as raw files of the published TVSD layout.

    Writes ``<out_dir>/raw/tvsd/monkey<X>/…``, ``<out_dir>/raw/tvsd/simulation.json`` and, where no photos are given,
    the stimuli as ``<out_dir>/images/<concept>/<file>``. The same arguments give the same bytes.

    Args:
        out_dir: Workspace folder.
        monkey: ``"F"`` or ``"N"``, default ``"F"``.
        images_dir: Folder of photos in class folders, or a binding from
            :func:`neurobridge_tb.simulation.shown_images.class_photos`; default: images are drawn.
        n_concepts: Number of concepts, default 250.
        images_per_concept: Training images a concept, shown once, default 12.
        n_test: Test images, each of another concept, default 100.
        n_repeats: Presentations of each test image, default 30.
        image_size: Pixels on a side at which the animal sees the images, default 64.
        noise: Scale of the trial noise, default 1.0; larger is harder.
        difficulty: How nonlinear the way from the responses back to the image is, default 0; see
            :class:`neurobridge_tb.simulation.VentralStream`.
        seed: Another seed draws other images and another animal.
        trials: Also write the 1 kHz file (2.4 MB a presentation), default False.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        The folder of the raw files, ``<out_dir>/raw/tvsd/monkey<X>``.

    Raises:
        InputError: Unusable settings, no images, an unreadable image, or recorded files in the folder.
    """
    root = Path(out_dir) / "raw" / "tvsd"
    folder = root / f"monkey{monkey}"
    note = _read_note(root / "simulation.json")
    if folder.name not in note and folder.is_dir() and any(p.suffix != ".lock" for p in folder.iterdir()):
        raise InputError(
            expected=f"a workspace without recordings of monkey {monkey}",
            found=f"files that were not simulated in {folder}",
            fix="Choose another workspace: simulated files never replace recorded ones.",
        )
    stream = VentralStream(monkey, seed, difficulty)
    if not noise >= 0:
        raise InputError(expected="noise of at least 0", found=f"{noise}", fix="1.0 is the default.")
    design = {"n_concepts": n_concepts, "images_per_concept": images_per_concept, "n_test": n_test}
    settings: dict[str, Any] = {
        **design,
        "n_repeats": n_repeats,
        "image_size": image_size,
        "noise": noise,
        "difficulty": difficulty,
        "seed": seed,
        "images": "drawn" if images_dir is None else str(images_dir),
    }

    def stage(name: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(name, done, total)

    if images_dir is None:
        check_design(n_concepts * images_per_concept, n_test, n_repeats)
        images_dir = Path(out_dir) / "images"
        train, test = write_procedural_images(
            images_dir, **design, size=image_size, seed=seed, progress=stage("drawing images")
        )
    else:
        rng = np.random.default_rng([seed, _STIMULI])
        train, test = choose_photos(images_dir, **design, rng=rng)
    order = draw_design(len(train), len(test), n_repeats, np.random.default_rng([seed, _DESIGN]))
    images = load_images(images_dir, train + test, image_size, progress=stage("reading images"))
    rng = np.random.default_rng([seed, _RECORDING])
    with _one_thread():
        drive = stream.drive(images, progress=stage("simulating the ventral stream"))
        recording = record(drive, stream.electrodes, order, monkey=monkey, noise=noise, rng=rng)

    mapping = np.random.default_rng([seed, _MAPPING]).permutation(N_CHANNELS) + 1
    write_json(root / "simulation.json", {**note, folder.name: settings})  # first: no file is ever without its mark
    write_image_list(folder / "_logs" / "things_imgs.mat", train, test)
    write_mapping(folder / "_logs" / "1024chns_mapping_20220105.mat", mapping)
    with _one_thread():
        write_norm_file(folder / "THINGS_normMUA.mat", recording)
    path = folder / "THINGS_MUA_trials.mat"
    path.unlink(missing_ok=True)  # of an earlier simulation
    if trials:
        rng = np.random.default_rng([seed, _TRACES])
        write_trials_file(path, recording, mapping, rng=rng, progress=stage("writing trials"))
    return folder


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the order of sums, and so the bytes, must not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _read_note(path: Path) -> dict[str, Any]:
    """Settings of the recordings simulated here before, by monkey folder; the note marks raw files as simulated."""
    return read_json(path) if path.exists() else {"simulated": True}
