"""Outlines of the drawn objects: each shape is a short list of polygons in the unit square.

Coordinates run from -1 to 1, x to the right and y down. A shape is drawn part by part, later parts over earlier
ones. The generator that a shape receives belongs to the concept, so what it draws from it (the number of a star's
points, the slimness of a bottle) is the same on all images of that concept.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

Points = np.ndarray


class Role(IntEnum):
    """What a part is painted with; ``BACK`` cuts a hole."""

    BACK = 0
    BODY = 1  # the concept's colour and texture
    TRIM = 2  # the concept's second colour, plain
    DARK = 3
    LIGHT = 4


class Shape(NamedTuple):
    """How to draw one kind of object, how it may be turned, and where it is usually seen."""

    draw: Callable[[np.random.Generator], list[tuple[Role, Points]]]
    turn: float  # largest rotation to either side, degrees
    scenes: tuple[str, ...]


def _ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> Points:
    angle = np.radians(np.linspace(start, stop, 40))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=float)


def _polar(radius: np.ndarray) -> Points:
    """Closed outline from its radius at equally spaced angles, the first one pointing up."""
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False) - np.pi / 2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _mirror(points: Points) -> Points:
    return points * np.array([-1.0, 1.0])


def _smooth(*corners: tuple[float, float], rounds: int = 3) -> Points:
    """Round a closed polygon off by cutting its corners (Chaikin)."""
    points = np.array(corners, dtype=float)
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        pair = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1)
        points = pair.reshape(-1, 2)
    return points


def _ball(rng: np.random.Generator):
    return [
        (Role.BODY, _ellipse(0, 0, 0.92, 0.92)),
        (Role.LIGHT, _ellipse(-0.36, -0.42, 0.13, 0.1)),
    ]


def _star(rng: np.random.Generator):
    points, inner = int(rng.integers(5, 9)), rng.uniform(0.42, 0.55)
    return [(Role.BODY, _polar(np.tile([1.0, inner], points)))]


def _pyramid(rng: np.random.Generator):
    top = rng.uniform(-0.15, 0.15)
    face = np.array([[top, -0.9], [0.35, 0.8], [-0.95, 0.62]])
    return [(Role.BODY, face), (Role.TRIM, np.array([[top, -0.9], [0.95, 0.5], [0.35, 0.8]]))]


def _ring(rng: np.random.Generator):
    hole = rng.uniform(0.4, 0.6)
    return [(Role.BODY, _ellipse(0, 0, 0.95, 0.95)), (Role.BACK, _ellipse(0, 0, hole, hole))]


def _cross(rng: np.random.Generator):
    w = rng.uniform(0.24, 0.38)
    return [(Role.BODY, _box(-w, -0.92, w, 0.92)), (Role.BODY, _box(-0.92, -w, 0.92, w))]


def _heart(rng: np.random.Generator):
    t = np.linspace(0, 2 * np.pi, 60)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [(Role.BODY, np.stack([np.sin(t) ** 3, -(y + 2.5) / 15.5], axis=1))]


def _leaf(rng: np.random.Generator):
    width = rng.uniform(0.42, 0.62)
    t = np.linspace(-1, 1, 30)
    side = np.stack([width * (1 - t**2) ** 0.8 * (1 - 0.25 * t), t * 0.9 - 0.1], axis=1)
    vein = np.array([[-0.03, -0.8], [0.03, -0.8], [0.06, 1.0], [-0.06, 1.0]])
    blade = np.concatenate([side, _mirror(side)[::-1]])
    return [(Role.BODY, blade), (Role.TRIM, vein)]


def _bottle(rng: np.random.Generator):
    half, shoulder = rng.uniform(0.34, 0.5), rng.uniform(-0.35, -0.1)
    right = np.array([[0.14, -0.9], [0.14, -0.55], [half, shoulder], [half, 0.9], [half - 0.06, 0.96]])
    return [
        (Role.BODY, np.concatenate([right, _mirror(right)[::-1]])),
        (Role.TRIM, _box(-0.18, -1.0, 0.18, -0.8)),
        (Role.TRIM, _box(-half, 0.2, half, 0.55)),
    ]


def _tree(rng: np.random.Generator):
    trunk = [(Role.DARK, np.array([[-0.1, 0.2], [0.1, 0.2], [0.15, 1.0], [-0.15, 1.0]]))]
    if rng.random() < 0.5:
        tiers = [(0.3, -0.3, -1.0), (0.5, 0.1, -0.62), (0.68, 0.55, -0.25)]
        return trunk + [(Role.BODY, np.array([[0, top], [w, base], [-w, base]])) for w, base, top in tiers[::-1]]
    crown = _polar(0.62 + 0.07 * np.cos(np.linspace(0, 2 * np.pi * int(rng.integers(6, 10)), 90)))
    return trunk + [(Role.BODY, crown + np.array([0, -0.32]))]


def _fish(rng: np.random.Generator):
    deep, tail = rng.uniform(0.42, 0.62), rng.uniform(0.35, 0.5)
    return [
        (Role.TRIM, np.array([[0.45, 0], [0.98, -tail], [0.84, 0], [0.98, tail]])),
        (Role.TRIM, _smooth((-0.3, -0.3), (0.1, -deep - 0.3), (0.45, -0.15))),
        (Role.BODY, _smooth((-1.05, 0), (-0.5, -deep), (0.25, -deep * 0.8), (0.75, 0),
                            (0.25, deep * 0.8), (-0.5, deep))),
        (Role.LIGHT, _ellipse(-0.55, -0.1, 0.12, 0.12)),
        (Role.DARK, _ellipse(-0.57, -0.1, 0.065, 0.065)),
    ]  # fmt: skip


def _house(rng: np.random.Generator):
    peak, door = rng.uniform(-1.0, -0.75), rng.uniform(-0.4, 0.1)
    return [
        (Role.BODY, _box(-0.72, -0.2, 0.72, 0.9)),
        (Role.TRIM, np.array([[-0.92, -0.18], [0, peak], [0.92, -0.18]])),
        (Role.DARK, _box(door, 0.35, door + 0.3, 0.9)),
        (Role.LIGHT, _box(0.25, 0.08, 0.53, 0.36)),
        (Role.LIGHT, _box(-0.56, 0.02, -0.28, 0.26)),
    ]


def _mug(rng: np.random.Generator):
    half, top = rng.uniform(0.48, 0.62), rng.uniform(-0.75, -0.55)
    return [
        (Role.TRIM, _ellipse(half, 0.05, 0.42, 0.44)),
        (Role.BACK, _ellipse(half, 0.05, 0.26, 0.28)),
        (
            Role.BODY,
            np.concatenate([_box(-half, top, half, 0.7)[:2], _ellipse(0, 0.7, half, 0.18, 0, 180)]),
        ),
        (Role.TRIM, _ellipse(0, top, half, 0.17)),
        (Role.DARK, _ellipse(0, top + 0.01, half - 0.08, 0.12)),
    ]


def _butterfly(rng: np.random.Generator):
    up, low = rng.uniform(0.75, 0.95), rng.uniform(0.5, 0.75)
    wing = _smooth((0.0, 0.0), (0.25, -0.9), (1.1, -up), (0.95, -0.05), (0.1, 0.1))
    tail = _smooth((0.0, 0.0), (0.8, 0.0), (0.85, low), (0.35, 1.0), (0.05, 0.3))
    spot = _ellipse(0.62, -0.45, 0.15, 0.15)
    sides = [
        (role, side(part))
        for role, part in ((Role.TRIM, tail), (Role.BODY, wing), (Role.LIGHT, spot))
        for side in (np.asarray, _mirror)
    ]
    return [*sides, (Role.DARK, _ellipse(0, 0, 0.075, 0.62))]


def _flower(rng: np.random.Generator):
    petals = int(rng.integers(5, 9))
    angle = np.arange(20 * petals) / 20 * 2 * np.pi
    bloom = _polar(0.6 + 0.36 * np.sqrt(np.abs(np.cos(angle / 2))))
    return [(Role.BODY, bloom), (Role.TRIM, _ellipse(0, 0, 0.3, 0.3))]


def _mushroom(rng: np.random.Generator):
    stem = rng.uniform(0.18, 0.28)
    return [
        (
            Role.LIGHT,
            _smooth((-stem, 0), (stem, 0), (stem + 0.14, 1.0), (-stem - 0.14, 1.0), rounds=2),
        ),
        (Role.TRIM, _ellipse(0, 0.1, 0.86, 0.14)),
        (Role.BODY, _ellipse(0, 0.1, 0.9, rng.uniform(0.75, 1.0), 180, 360)),
    ]


def _moon(rng: np.random.Generator):
    shift = rng.uniform(0.35, 0.55)
    return [(Role.BODY, _ellipse(0, 0, 0.95, 0.95)), (Role.BACK, _ellipse(shift, -0.1, 0.78, 0.78))]


def _gem(rng: np.random.Generator):
    w = rng.uniform(0.45, 0.6)
    crown = np.array([[-w, -0.65], [w, -0.65], [0.95, -0.15], [0, 0.95], [-0.95, -0.15]])
    return [
        (Role.TRIM, crown),
        (Role.BODY, np.array([[-0.95, -0.15], [0.95, -0.15], [0, 0.95]])),
        (Role.LIGHT, np.array([[-0.3, -0.15], [0, -0.65], [0.3, -0.15]])),
    ]


def _boat(rng: np.random.Generator):
    mast = rng.uniform(-0.15, 0.15)
    return [
        (Role.DARK, _box(mast - 0.04, -0.95, mast + 0.04, 0.4)),
        (Role.BODY, np.array([[mast + 0.08, -0.9], [0.85, 0.25], [mast + 0.08, 0.25]])),
        (Role.LIGHT, np.array([[mast - 0.08, -0.7], [-0.7, 0.25], [mast - 0.08, 0.25]])),
        (Role.TRIM, np.array([[-0.95, 0.36], [0.98, 0.36], [0.66, 0.85], [-0.66, 0.85]])),
    ]


def _bird(rng: np.random.Generator):
    plump = rng.uniform(0.4, 0.52)
    return [
        (Role.DARK, np.array([[0.3, -0.02], [1.0, -0.3], [0.92, 0.12]])),
        (Role.BODY, _ellipse(0.02, 0.15, 0.66, plump)),
        (Role.BODY, _ellipse(-0.5, -0.32, 0.33, 0.32)),
        (Role.TRIM, _smooth((-0.25, -0.05), (0.3, -0.2), (0.85, 0.15), (0.2, 0.45))),
        (Role.LIGHT, np.array([[-0.78, -0.42], [-1.05, -0.26], [-0.78, -0.2]])),
        (Role.DARK, _ellipse(-0.58, -0.4, 0.06, 0.06)),
        (Role.DARK, np.array([[-0.05, 0.5], [0.0, 0.5], [0.0, 0.95], [-0.05, 0.95]])),
        (Role.DARK, np.array([[0.15, 0.5], [0.2, 0.5], [0.2, 0.95], [0.15, 0.95]])),
    ]


def _umbrella(rng: np.random.Generator):
    ribs = int(rng.integers(3, 6))
    x = np.linspace(0.95, -0.95, 20 * ribs)
    hem = np.stack([x, 0.12 - 0.14 * np.abs(np.sin((x + 0.95) / 1.9 * ribs * np.pi))], axis=1)
    return [
        (Role.DARK, _box(-0.04, -0.95, 0.04, 0.8)),
        (Role.DARK, _ellipse(0.16, 0.78, 0.2, 0.2, 0, 180)),
        (Role.BACK, _ellipse(0.16, 0.78, 0.12, 0.12, 0, 180)),
        (Role.BODY, np.concatenate([_ellipse(0, 0.12, 0.95, 0.95, 180, 360), hem])),
    ]


def _apple(rng: np.random.Generator):
    waist = rng.uniform(0.1, 0.25)
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = 0.78 - waist * np.exp(-((np.minimum(angle, 2 * np.pi - angle) / 0.45) ** 2))
    radius -= 0.08 * np.exp(-(((angle - np.pi) / 0.35) ** 2))
    return [
        (Role.BODY, _polar(radius) * np.array([1.1, 1.0]) + np.array([0, 0.12])),
        (Role.DARK, np.array([[-0.05, -0.35], [0.04, -0.35], [0.14, -0.9], [0.04, -0.92]])),
        (Role.TRIM, _smooth((0.1, -0.6), (0.3, -1.0), (0.75, -0.9), (0.5, -0.55))),
    ]


def _car(rng: np.random.Generator):
    roof = rng.uniform(-0.55, -0.4)
    cabin = _smooth((-0.65, 0.05), (-0.35, roof - 0.1), (0.4, roof - 0.1), (0.7, 0.05), rounds=2)
    wheels = [
        (role, _ellipse(x, 0.5, r, r)) for x in (-0.52, 0.52) for role, r in ((Role.DARK, 0.24), (Role.LIGHT, 0.1))
    ]
    return [
        (Role.TRIM, cabin),
        (
            Role.LIGHT,
            np.array([[-0.4, -0.04], [-0.26, roof + 0.06], [0.0, roof + 0.06], [0.0, -0.04]]),
        ),
        (
            Role.LIGHT,
            np.array([[0.08, -0.04], [0.08, roof + 0.06], [0.3, roof + 0.06], [0.48, -0.04]]),
        ),
        (Role.BODY, _smooth((-1.0, 0.0), (0.98, 0.0), (1.02, 0.52), (-1.02, 0.52), rounds=2)),
        *wheels,
    ]


def _balloon(rng: np.random.Generator):
    slim = rng.uniform(0.58, 0.7)
    return [
        (Role.DARK, np.array([[-0.02, 0.5], [0.02, 0.5], [0.1, 1.0], [0.06, 1.0]])),
        (Role.BODY, _smooth((-slim, -0.95), (slim, -0.95), (slim, -0.1), (0, 0.75), (-slim, -0.1))),
        (Role.TRIM, np.array([[0, 0.45], [0.11, 0.64], [-0.11, 0.64]])),
        (Role.LIGHT, _ellipse(-0.25, -0.52, 0.1, 0.15)),
    ]


def _crown(rng: np.random.Generator):
    spikes = int(rng.integers(3, 6))
    x = np.linspace(-0.9, 0.9, 2 * spikes - 1)
    top = np.stack([x, np.where(np.arange(len(x)) % 2, 0.0, -0.65)], axis=1)
    tips = [(Role.LIGHT, _ellipse(px, -0.68, 0.1, 0.1)) for px, _ in top[::2]]
    outline = np.concatenate([top, [[0.8, 0.7], [-0.8, 0.7]]])
    return [(Role.BODY, outline), (Role.TRIM, _box(-0.8, 0.45, 0.8, 0.72)), *tips]


SHAPES: dict[str, Shape] = {
    "apple": Shape(_apple, 20, ("table", "foliage")),
    "ball": Shape(_ball, 180, ("meadow", "table")),
    "balloon": Shape(_balloon, 20, ("clouds", "meadow")),
    "bird": Shape(_bird, 12, ("foliage", "clouds")),
    "boat": Shape(_boat, 10, ("sea",)),
    "bottle": Shape(_bottle, 12, ("table", "studio")),
    "butterfly": Shape(_butterfly, 60, ("foliage", "meadow")),
    "car": Shape(_car, 8, ("road", "meadow")),
    "cross": Shape(_cross, 45, ("studio", "sand")),
    "crown": Shape(_crown, 15, ("bokeh", "studio")),
    "fish": Shape(_fish, 25, ("underwater",)),
    "flower": Shape(_flower, 180, ("foliage", "meadow")),
    "gem": Shape(_gem, 20, ("bokeh", "studio")),
    "heart": Shape(_heart, 25, ("studio", "bokeh")),
    "house": Shape(_house, 5, ("meadow", "road")),
    "leaf": Shape(_leaf, 180, ("sand", "foliage")),
    "moon": Shape(_moon, 40, ("night",)),
    "mug": Shape(_mug, 8, ("table",)),
    "mushroom": Shape(_mushroom, 12, ("foliage", "meadow")),
    "pyramid": Shape(_pyramid, 8, ("sand", "clouds")),
    "ring": Shape(_ring, 180, ("studio", "underwater")),
    "star": Shape(_star, 180, ("night", "studio")),
    "tree": Shape(_tree, 6, ("meadow", "sand")),
    "umbrella": Shape(_umbrella, 20, ("sea", "road")),
}
