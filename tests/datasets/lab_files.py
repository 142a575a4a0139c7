"""Small files as labs have them, of simulated activity, and a server that serves ranges of them."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

SECONDS = 120.0


def spike_trains(n_units: int = 6, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, SECONDS, rng.integers(200, 900))) for _ in range(n_units)]


def write_nwb(path: Path, *, calcium: bool = False, uneven: bool = False) -> Path:
    """Units with electrodes, or calcium traces; trials with a ragged column, point events and NaN; running; images."""
    import pynwb
    from pynwb.base import ImageReferences, Images
    from pynwb.image import GrayscaleImage, IndexSeries

    nwb = pynwb.NWBFile("a session", "id", datetime(2024, 1, 1, tzinfo=UTC))
    nwb.subject = pynwb.file.Subject(subject_id="mouse 7", species="Mus musculus", sex="F", age="P90D")
    if calcium:
        _add_calcium(nwb, uneven)
    else:
        _add_units(nwb)
    nwb.add_trial_column("stimulus", "what was shown")
    nwb.add_trial_column("licks", "times", index=True)
    for k in range(40):
        nwb.add_trial(start_time=3.0 * k, stop_time=3.0 * k + 2, stimulus=("cat", "dog")[k % 2], licks=[1.0] * (k % 3))
    nwb.add_epoch(0.0, 60.0, ["first"])
    nwb.add_epoch(60.0, 60.0, ["a point"])
    nwb.add_epoch(60.0, 5000.0, ["beyond the end"])
    times = np.arange(0, SECONDS, 0.05)
    behavior = nwb.create_processing_module("behavior", "running")
    behavior.add(
        pynwb.TimeSeries(name="running_speed", data=np.sin(times), timestamps=times, unit="cm/s", conversion=2.0)
    )
    behavior.add(pynwb.behavior.SpatialSeries(name="position", data=np.zeros((60, 2)), rate=1.0, reference_frame="box"))
    nwb.add_acquisition(pynwb.TimeSeries(name="raw", data=np.zeros((10, 3, 2)), rate=1.0, unit="a"))
    pictures = [GrayscaleImage(name=name, data=np.zeros((2, 2))) for name in ("a.png", "b.png")]
    shown = Images(
        name="pictures", images=pictures, order_of_images=ImageReferences(name="order_of_images", data=pictures)
    )
    nwb.add_stimulus_template(shown)
    onsets = 1.0 + 2 * np.arange(20)
    indices = IndexSeries(
        name="shown", data=np.arange(20, dtype=np.uint32) % 2, timestamps=onsets, indexed_images=shown, unit="N/A"
    )
    nwb.add_stimulus(indices)
    with pynwb.NWBHDF5IO(path, "w") as writer:
        writer.write(nwb)
    return path


def _add_units(nwb) -> None:
    device = nwb.create_device("probe")
    group = nwb.create_electrode_group("g", description="a probe", location="brain", device=device)
    for k in range(4):
        nwb.add_electrode(group=group, location=["VISp", "VISp", "CA1", "CA1"][k])
    nwb.add_unit_column("quality", "by hand")
    nwb.add_unit_column("snr", "of the waveform")
    for k, train in enumerate([*spike_trains(), np.array([])]):
        nwb.add_unit(spike_times=train, electrodes=[k % 4], quality="good" if k % 3 else "noise", snr=float(k))


def _add_calcium(nwb, uneven: bool) -> None:
    from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel

    device = nwb.create_device("microscope")
    channel = OpticalChannel(name="green", description="a channel", emission_lambda=500.0)
    plane = nwb.create_imaging_plane(
        name="plane", optical_channel=channel, description="", device=device, excitation_lambda=600.0, indicator="G",
        location="VISp", imaging_rate=10.0,
    )  # fmt: skip
    ophys = nwb.create_processing_module("ophys", "calcium")
    segmentation = ImageSegmentation()
    ophys.add(segmentation)
    rois = segmentation.create_plane_segmentation("rois", plane, name="cells")
    for k in range(5):
        rois.add_roi(pixel_mask=[(k, k, 1.0)])
    region = rois.create_roi_table_region("all", region=list(range(5)))
    times = np.arange(0, SECONDS, 0.1) + (0.3 * np.sin(np.arange(0, SECONDS, 0.1)) if uneven else 0)
    traces = np.random.default_rng(0).normal(size=(len(times), 5))
    for container, scale in ((Fluorescence(), 100.0), (DfOverF(), 1.0)):
        ophys.add(container)
        container.create_roi_response_series(
            name="traces", data=scale * traces, rois=region, unit="a.u.", timestamps=times
        )


def write_phy(folder: Path, *, params: str | None = None) -> Path:
    trains = spike_trains()
    samples = np.concatenate([np.round(30_000 * train).astype(np.uint64) for train in trains])
    clusters = np.repeat([3, 5, 6, 9, 11, 20], [len(train) for train in trains]).astype(np.int32)
    order = np.argsort(samples)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "spike_times.npy", samples[order][:, None])
    np.save(folder / "spike_clusters.npy", clusters[order])
    groups = ["good", "mua", "good", "good", "noise", "good", "good"]
    rows = [f"{cluster}\t{group}" for cluster, group in zip([3, 5, 6, 9, 11, 20, 21], groups, strict=True)]
    (folder / "cluster_group.tsv").write_text("\n".join(["cluster_id\tgroup", *rows]) + "\n")
    (folder / "cluster_depth.tsv").write_text("cluster_id\tdepth\n" + "\n".join(f"{c}\t{10 * c}" for c in (3, 5, 6)))
    if params is not None:
        (folder / "params.py").write_text(params)
    return folder


def write_alf(folder: Path) -> Path:
    folder.mkdir(parents=True)
    trains = spike_trains()
    times = np.concatenate(trains)
    order = np.argsort(times)
    np.save(folder / "spikes.times.npy", times[order])
    np.save(
        folder / "spikes.clusters.npy", np.repeat([0, 2, 3, 5, 6, 7], list(map(len, trains)))[order].astype(np.uint32)
    )
    np.save(folder / "clusters.channels.npy", np.arange(8) % 4)
    np.save(folder / "channels.brainLocationAcronyms_ccf_2017.npy", np.array(["CA1", "CA1", "VISp", "VISp"]))
    return folder


class _Ranges(SimpleHTTPRequestHandler):
    """Serves files with ranges, as object stores do."""

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range")
        first, last = 0, len(content) - 1
        if asked:
            low, _, high = asked.removeprefix("bytes=").partition("-")
            first, last = int(low), min(int(high or last), last)
        body = content[first : last + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        self.wfile.write(body)
        self.server.served.append(len(body))

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(Path(self.translate_path(self.path)).stat().st_size))
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Address of a folder, and the sizes of what was served.

    Meanwhile nothing is collected: the server's thread might close an HDF5 file, and wait for HDF5's lock, which the
    reader holds while it waits for the server.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: _Ranges(*a, directory=str(folder)))
    server.served = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    gc.collect()
    gc.disable()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.served
    finally:
        gc.enable()
        server.shutdown()
        server.server_close()
