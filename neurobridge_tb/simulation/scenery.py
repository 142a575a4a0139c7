"""Backgrounds of natural hue: each takes a generator and a size and returns RGB in [0, 1], (size, size, 3)."""

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator


def fractal_noise(rng: Rng, size: int, slope: float = 1.2) -> np.ndarray:
    """Noise with a 1/f**slope amplitude spectrum, as in natural images; (size, size), in [0, 1]."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0
    phase = np.exp(2j * np.pi * rng.random(frequency.shape))
    noise = np.fft.irfft2(phase * frequency**-slope * (frequency < 1.0), s=(size, size))
    low, high = np.quantile(noise, [0.02, 0.98])
    return np.clip((noise - low) / (high - low), 0, 1)


def _mix(first, second, weight: np.ndarray) -> np.ndarray:
    weight = weight[..., None]
    return np.asarray(first) * (1 - weight) + np.asarray(second) * weight


def _tint(rng: Rng, *color: float, spread: float = 0.06) -> np.ndarray:
    return np.clip(np.array(color) + rng.normal(0, spread, 3) * 0.5 + rng.normal(0, spread), 0, 1)


def _down(size: int) -> np.ndarray:
    return np.linspace(0, 1, size)[:, None] * np.ones((1, size))


def _across(size: int) -> np.ndarray:
    return _down(size).T


def _step(rng: Rng, size: int, level: float, rough: float = 0.0) -> np.ndarray:
    """0 above a (wavy) horizon at height ``level``, 1 below it."""
    x = np.linspace(0, 2 * np.pi, size)
    wave = sum(rough / k * np.sin(k * x + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3))
    return np.clip((_down(size) - level - wave) * size + 0.5, 0, 1)


def _sky(rng: Rng, size: int) -> np.ndarray:
    if rng.random() < 0.2:  # evening
        return _mix(_tint(rng, 0.45, 0.5, 0.72), _tint(rng, 0.97, 0.74, 0.52), _down(size) ** 0.7)
    blue = _mix(_tint(rng, 0.35, 0.58, 0.88), _tint(rng, 0.82, 0.9, 0.96), _down(size))
    return _mix(blue, (0.97, 0.97, 0.98), fractal_noise(rng, size, 1.5) ** 2 * rng.uniform(0, 0.8))


def _studio(rng: Rng, size: int) -> np.ndarray:
    color = _tint(rng, *((0.78, 0.75, 0.7), (0.62, 0.7, 0.76), (0.8, 0.72, 0.66))[rng.integers(3)])
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * (_across(size) - 0.5) + np.sin(angle) * (_down(size) - 0.5) + 0.5
    return _mix(color * 0.72, np.minimum(color * 1.12, 1), np.clip(ramp, 0, 1))


def _meadow(rng: Rng, size: int) -> np.ndarray:
    hills = _mix(_sky(rng, size), _tint(rng, 0.42, 0.56, 0.5), _step(rng, size, 0.5, 0.06))
    grass = _mix(_tint(rng, 0.28, 0.46, 0.16), _tint(rng, 0.58, 0.7, 0.3), fractal_noise(rng, size, 0.8))
    return _over(hills, grass, _step(rng, size, rng.uniform(0.5, 0.7), 0.03))


def _sea(rng: Rng, size: int) -> np.ndarray:
    level = rng.uniform(0.45, 0.65)
    x = np.arange(size) / 5  # noise stretched sideways
    noise, left = fractal_noise(rng, size, 0.9), x.astype(int)
    ripples = noise[:, left] * (1 - x % 1) + noise[:, left + 1] * (x % 1)
    water = _mix(_tint(rng, 0.1, 0.36, 0.52), _tint(rng, 0.45, 0.72, 0.8), ripples)
    return _over(_sky(rng, size), water, _step(rng, size, level))


def _over(back: np.ndarray, front: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return back + (front - back) * alpha[..., None]


def _clouds(rng: Rng, size: int) -> np.ndarray:
    cover = np.clip(fractal_noise(rng, size, 1.6) * 1.6 - rng.uniform(0.3, 0.7), 0, 1)
    return _mix(_tint(rng, 0.4, 0.62, 0.88), (0.97, 0.97, 0.98), cover)


def _foliage(rng: Rng, size: int) -> np.ndarray:
    green = _mix(_tint(rng, 0.1, 0.22, 0.09), _tint(rng, 0.5, 0.64, 0.28), fractal_noise(rng, size, 1.3))
    return _over(green, _bokeh_lights(rng, size, (0.75, 0.82, 0.5)), np.full((size, size), 0.25))


def _bokeh_lights(rng: Rng, size: int, color) -> np.ndarray:
    x, y, light = _across(size), _down(size), np.zeros((size, size))
    for _ in range(int(rng.integers(5, 10))):
        distance = np.hypot(x - rng.random(), y - rng.random())
        light += rng.uniform(0.3, 0.9) * np.clip((rng.uniform(0.05, 0.15) - distance) * 25, 0, 1)
    return np.minimum(light, 1)[..., None] * np.asarray(color)


def _bokeh(rng: Rng, size: int) -> np.ndarray:
    warm = _tint(rng, *((0.32, 0.22, 0.18), (0.16, 0.2, 0.3), (0.28, 0.18, 0.28))[rng.integers(3)])
    glow = _tint(rng, 0.9, 0.72, 0.45, spread=0.1)
    return np.clip(warm * (0.7 + 0.6 * _down(size)[..., None]) + 0.5 * _bokeh_lights(rng, size, glow), 0, 1)


def _table(rng: Rng, size: int) -> np.ndarray:
    wall = _mix(_tint(rng, 0.82, 0.78, 0.7), _tint(rng, 0.68, 0.66, 0.62), _across(size))
    grain = np.sin(_down(size) * 60 + 7 * fractal_noise(rng, size, 1.6)) * 0.5 + 0.5
    wood = _mix(_tint(rng, 0.46, 0.3, 0.18), _tint(rng, 0.66, 0.47, 0.3), grain)
    return _over(wall, wood, _step(rng, size, rng.uniform(0.55, 0.72)))


def _sand(rng: Rng, size: int) -> np.ndarray:
    dunes = np.sin(_down(size) * rng.uniform(20, 36) + 5 * fractal_noise(rng, size, 1.8)) * 0.5 + 0.5
    return _mix(
        _tint(rng, 0.72, 0.58, 0.4),
        _tint(rng, 0.9, 0.8, 0.62),
        0.6 * dunes + 0.4 * rng.random((size, size)),
    )


def _road(rng: Rng, size: int) -> np.ndarray:
    level = rng.uniform(0.55, 0.68)
    town = _over(_sky(rng, size), np.asarray(_tint(rng, 0.62, 0.58, 0.54)), _skyline(rng, size, level))
    asphalt = _mix(_tint(rng, 0.32, 0.32, 0.34), _tint(rng, 0.48, 0.47, 0.47), fractal_noise(rng, size, 0.6))
    return _over(town, asphalt, _step(rng, size, level))


def _skyline(rng: Rng, size: int, level: float) -> np.ndarray:
    height = rng.uniform(0.08, 0.4, 8).repeat(size // 8 + 1)[:size]
    return np.clip((_down(size) - (level - height)) * size + 0.5, 0, 1) * 0.8


def _underwater(rng: Rng, size: int) -> np.ndarray:
    deep = _mix(_tint(rng, 0.3, 0.7, 0.78), _tint(rng, 0.03, 0.2, 0.38), _down(size) ** 0.8)
    rays = np.sin((_across(size) + rng.uniform(-0.4, 0.4) * _down(size)) * rng.uniform(14, 24)) * 0.5 + 0.5
    return np.clip(deep + 0.12 * (rays * (1 - _down(size)) * fractal_noise(rng, size))[..., None], 0, 1)


def _night(rng: Rng, size: int) -> np.ndarray:
    sky = _mix(_tint(rng, 0.12, 0.14, 0.3), _tint(rng, 0.32, 0.33, 0.55), fractal_noise(rng, size, 1.6))
    stars = np.clip((rng.random((size, size)) - 0.985) * 60, 0, 0.8)
    return np.clip(sky + stars[..., None], 0, 1)


SCENES: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "studio": _studio,
    "meadow": _meadow,
    "sea": _sea,
    "clouds": _clouds,
    "foliage": _foliage,
    "bokeh": _bokeh,
    "table": _table,
    "sand": _sand,
    "road": _road,
    "underwater": _underwater,
    "night": _night,
}
