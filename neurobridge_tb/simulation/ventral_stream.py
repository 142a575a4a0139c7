"""A virtual ventral stream: what each electrode of a monkey with the TVSD implants would respond without noise.

V1 sites measure Gabor energy at retinotopic positions (Adelson & Bergen 1985), some keep the phase of simple cells.
V4 sites weigh colour, oriented texture and an early network stage inside a local window.
IT sites are random nonlinear mixtures of global, coarsely spatial features of a deep network stage. That stage is
*not* the penultimate layer that images are aligned to, so that decoding has to learn the way from one to the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from neurobridge_tb.alignment.encoders import DEFAULT_ENCODER, load_image_encoder
from neurobridge_tb.errors import InputError

Floats = NDArray[np.float32]

N_CHANNELS = 1024
CHANNELS_PER_ARRAY = 64
AREA_STARTS: dict[str, dict[str, int]] = {  # first physical channel of each area, TVSD (Papale et al. 2025)
    "F": {"V1": 0, "IT": 512, "V4": 832},
    "N": {"V1": 0, "V4": 512, "IT": 768},
}
_V1_SIZE = 64  # V1 sees the picture at this many pixels on a side
_NETWORK_SIZE = 128
_V4_LAYER, _IT_LAYER = "blocks.2", "blocks.4"
_GRID = 8  # V4 and IT maps, before their windows
_V4_WINDOWS = 4  # windows on a side
_IT_HIDDEN = 256  # units of the random network in front of IT sites
_IN_COMMON = 2.0  # deviation of what the sites of an array share, in deviations of what is a site's own


class Electrodes(NamedTuple):
    """Where the 1,024 physical channels lie: area names and array numbers (from 0), each of shape (1024,)."""

    area: NDArray[np.str_]
    array: NDArray[np.int64]


def electrodes(monkey: str) -> Electrodes:
    """Implant of monkey ``"F"`` or ``"N"`` in physical channel order.

    Raises:
        InputError: Another monkey.
    """
    if monkey not in AREA_STARTS:
        raise InputError(expected="monkey 'F' or 'N'", found=repr(monkey), fix="Choose one of these two.")
    area = np.empty(N_CHANNELS, dtype="<U2")
    for name, start in AREA_STARTS[monkey].items():
        area[start:] = name
    return Electrodes(area, np.arange(N_CHANNELS) // CHANNELS_PER_ARRAY)


@dataclass
class VentralStream:
    """Noise-free drive of every electrode of one monkey; another ``seed`` makes another animal.

    Args:
        monkey: ``"F"`` or ``"N"``, the layout of areas.
        seed: Draws receptive fields and preferences.
        difficulty: Strength of conjunctions: a site also responds to the product of what two other sites prefer.
            Default 0: none.

    Raises:
        InputError: Another monkey, or a negative difficulty.
    """

    monkey: str
    seed: int = 0
    difficulty: float = 0.0

    def __post_init__(self) -> None:
        if not self.difficulty >= 0:
            raise InputError(
                expected="difficulty of at least 0", found=f"{self.difficulty}", fix="0 is easy, 1 is calibrated."
            )
        self.electrodes = electrodes(self.monkey)

    def drive(self, images: NDArray[np.uint8], *, progress: Callable[[int, int], None] | None = None) -> Floats:
        """Response to images, through each site's static rectifying and saturating nonlinearity.

        Args:
            images: uint8 RGB, shape (n, H, W, 3), square. Preferences are set against the statistics of these
                images, so give all images of an experiment at once.
            progress: Called as ``progress(images done, n)``.

        Returns:
            float32, shape (n, 1024), physical channel order, at least 0, standard deviation 1 over the images.
        """
        rng = {area: np.random.default_rng([self.seed, k]) for k, area in enumerate(("V1", "V4", "IT"))}
        conjunctions = np.random.default_rng([self.seed, 3])  # of its own: any difficulty, the same receptive fields
        arrays = {area: self.electrodes.array[self.electrodes.area == area] for area in rng}
        gabors = _v1_gabors(rng["V1"], arrays["V1"])
        encoder = load_image_encoder(DEFAULT_ENCODER, image_size=_NETWORK_SIZE)
        parts: dict[str, list[Floats]] = {"V1": [], "V4": [], "IT": []}
        for start in range(0, len(images), 128):
            batch = torch.from_numpy(images[start : start + 128]).permute(0, 3, 1, 2).contiguous()
            colors = _opponent_colors(batch)
            maps = encoder.features(batch, [_V4_LAYER, _IT_LAYER], grid=_GRID)
            parts["V1"].append(_v1_energy(colors, gabors))
            parts["V4"].append(_v4_features(colors, maps[_V4_LAYER]))
            parts["IT"].append(_it_features(maps[_IT_LAYER]))
            if progress is not None:
                progress(min(start + 128, len(images)), len(images))
        features = {area: _standardise(np.concatenate(chunks)) for area, chunks in parts.items()}
        out = np.empty((len(images), N_CHANNELS), dtype=np.float32)
        for area, mix in (("V1", _v1_sites), ("V4", _v4_sites), ("IT", _it_sites)):
            tuned = _standardise(mix(features[area], rng[area], arrays[area]))
            tuned = _overhear(_conjoin(tuned, self.difficulty, conjunctions), arrays[area])
            out[:, self.electrodes.area == area] = _saturate(_standardise(tuned), rng[area])
        return out


def _opponent_colors(images: torch.Tensor) -> torch.Tensor:
    """Luminance, red-green and blue-yellow planes at V1's resolution, shape (n, 3, 64, 64), about -1 to 1."""
    small = images.float() / 255
    if small.shape[-1] != _V1_SIZE:
        small = F.interpolate(small, size=_V1_SIZE, mode="bilinear", antialias=True)
    red, green, blue = small.unbind(1)
    light = (red + green + blue) / 3
    return torch.stack([2 * light - 1, red - green, blue - (red + green) / 2], 1)


def _gabor(x: float, y: float, angle: float, period: float, phase: float) -> Floats:
    """Gabor with unit norm and zero mean on V1's picture; positions and period in pixels, angle in radians."""
    row, column = np.mgrid[:_V1_SIZE, :_V1_SIZE]
    along = np.cos(angle) * (column - x) + np.sin(angle) * (row - y)
    envelope = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * (0.45 * period) ** 2))
    wave = np.cos(2 * np.pi * along / period + phase)
    wave = envelope * (wave - (envelope * wave).sum() / envelope.sum())
    return (wave / np.linalg.norm(wave)).astype(np.float32)


def _v1_gabors(rng: np.random.Generator, array: NDArray[np.int64]) -> torch.Tensor:
    """Quadrature pair and envelope of each V1 site, shape (3, sites, 64 * 64); arrays look at one region each."""
    centre = {k: rng.uniform(26, 50, 2) for k in np.unique(array)}  # one quadrant, as the implants
    pairs = []
    for k in array:
        x, y = np.clip(centre[k] + rng.normal(0, 5, 2), 4, 60)
        angle, period = rng.uniform(0, np.pi), 2 ** rng.uniform(2, 4)
        pairs.append([_gabor(x, y, angle, period, phase) for phase in (0.0, np.pi / 2)])
    even, odd = np.array(pairs).reshape(len(array), 2, -1).swapaxes(0, 1)
    window = np.hypot(even, odd)
    return torch.from_numpy(np.stack([even, odd, window / window.sum(axis=1, keepdims=True)]))


def _v1_energy(colors: torch.Tensor, gabors: torch.Tensor) -> Floats:
    """Energy, the even response and local colour of each V1 site, shape (n, 3 * sites)."""
    even, odd, window = gabors
    light, red_green = colors[:, 0].flatten(1), colors[:, 1].flatten(1)
    phased, quadrature = light @ even.T, light @ odd.T
    return torch.cat([torch.hypot(phased, quadrature), phased, red_green @ window.T], 1).numpy()


def _v1_sites(features: Floats, rng: np.random.Generator, array: NDArray[np.int64]) -> Floats:
    energy, even, tint = np.split(features, 3, axis=1)
    simple = np.where(rng.random(len(array)) < 0.3, rng.uniform(0.5, 1.0, len(array)), 0.0)
    blob = np.where(rng.random(len(array)) < 0.15, rng.normal(0, 0.8, len(array)), 0.0)
    return (energy + simple * even + blob * tint).astype(np.float32)


def _v4_features(colors: torch.Tensor, early: torch.Tensor) -> Floats:
    """Colour, oriented texture and early network maps in 4 x 4 overlapping windows, shape (n, 16 * features)."""
    down, across = torch.gradient(colors[:, :1], dim=(2, 3))
    strength, angle = torch.hypot(down, across), torch.atan2(down, across)
    oriented = [strength * (torch.cos(2 * (angle - k * np.pi / 4)) + 1) for k in range(4)]
    tints = [plane.clamp(min=0) for plane in (colors, -colors)]
    local = F.adaptive_avg_pool2d(torch.cat([*tints, *oriented, strength**2], 1), _GRID)
    maps = torch.cat([local, early], 1)
    rows = torch.einsum("nchw,hp->ncpw", maps, _windows())
    return torch.einsum("ncpw,wq->npqc", rows, _windows()).flatten(1).numpy()


def _windows() -> torch.Tensor:
    """Gaussian windows along one side of the map, shape (8, 4), each summing to one."""
    centre = torch.linspace(1.0, _GRID - 2.0, _V4_WINDOWS)
    window = torch.exp(-((torch.arange(_GRID)[:, None] - centre) ** 2) / (2 * 1.1**2))
    return window / window.sum(0)


def _v4_sites(features: Floats, rng: np.random.Generator, array: NDArray[np.int64]) -> Floats:
    windows = features.reshape(len(features), _V4_WINDOWS**2, -1)
    out = np.empty((len(features), len(array)), dtype=np.float32)
    home = {k: rng.integers(1, _V4_WINDOWS, size=2) for k in np.unique(array)}
    n_colors = 6
    for site, k in enumerate(array):
        row, column = np.clip(home[k] + rng.integers(-1, 2, 2), 0, _V4_WINDOWS - 1)
        weight = rng.standard_normal(windows.shape[2]) * (rng.random(windows.shape[2]) < 0.2)
        weight[:n_colors] += rng.standard_normal(n_colors) * (1.5 if rng.random() < 0.4 else 0.3)
        out[:, site] = windows[:, row * _V4_WINDOWS + column] @ weight.astype(np.float32)
    return out


def _it_features(deep: torch.Tensor) -> Floats:
    """Global mean and 2 x 2 raster of the deep maps, shape (n, 5 * features)."""
    return torch.cat([deep.mean((2, 3)), F.adaptive_avg_pool2d(deep, 2).flatten(1)], 1).numpy()


def _it_sites(features: Floats, rng: np.random.Generator, array: NDArray[np.int64]) -> Floats:
    n_global = features.shape[1] // 5
    scale = np.full(features.shape[1], 0.4)
    scale[:n_global] = 1.0
    first = rng.standard_normal((features.shape[1], _IT_HIDDEN)) * scale[:, None]
    hidden = _standardise(features @ first.astype(np.float32))
    hidden = _standardise(np.maximum(hidden - rng.uniform(-0.5, 0.5, _IT_HIDDEN).astype(np.float32), 0))
    second = rng.standard_normal((_IT_HIDDEN, len(array)))
    return hidden @ second.astype(np.float32)


def _conjoin(tuned: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Nonlinear mixed selectivity (Rigotti et al. 2013): add the product of what two random sites prefer."""
    first, second = rng.integers(tuned.shape[1], size=(2, tuned.shape[1]))
    return _standardise(tuned + strength * tuned[:, first] * tuned[:, second]) if strength else tuned


def _overhear(tuned: Floats, array: NDArray[np.int64]) -> Floats:
    """Multi-unit sites share neurons and columns share preferences: add what the sites of an array have in common."""
    common = np.stack([tuned[:, array == k].mean(axis=1) for k in np.unique(array)], axis=1)
    return tuned + _IN_COMMON * _standardise(common)[:, np.unique(array, return_inverse=True)[1]]


def _standardise(values: Floats) -> Floats:
    spread = values.std(axis=0)
    return ((values - values.mean(axis=0)) / np.where(spread > 1e-6, spread, 1)).astype(np.float32)


def _saturate(tuned: Floats, rng: np.random.Generator) -> Floats:
    """Rectify above a threshold of each site and saturate (Naka & Rushton 1966), then scale to unit deviation."""
    above = np.logaddexp(0, 2 * (tuned - rng.uniform(-0.8, 0.4, tuned.shape[1]))) / 2
    rate = above / (above + rng.uniform(2, 6, tuned.shape[1]))
    return (rate / np.maximum(rate.std(axis=0), 1e-6)).astype(np.float32)
