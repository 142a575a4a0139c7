"""Procedurally drawn pictures: textured objects on natural-looking backgrounds, with class names.

A concept is a colour family, a surface texture and a shape, e.g. ``red_striped_star``. All images of a concept
share its colours, its pattern and its outline; pose, light and background differ from image to image. Files are
named as THINGS names them (``<concept>/<concept>_01b.jpg``).
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside
from neurobridge_tb.simulation.scenery import SCENES, fractal_noise
from neurobridge_tb.simulation.shapes import SHAPES, Role

COLORS: dict[str, tuple[float, float, float]] = {  # hue in turns, saturation, value
    "red": (0.99, 0.82, 0.82),
    "orange": (0.07, 0.88, 0.95),
    "yellow": (0.14, 0.78, 0.97),
    "green": (0.34, 0.66, 0.6),
    "teal": (0.49, 0.7, 0.66),
    "blue": (0.61, 0.74, 0.8),
    "purple": (0.76, 0.58, 0.66),
    "pink": (0.92, 0.42, 0.96),
    "brown": (0.06, 0.62, 0.46),
    "white": (0.12, 0.05, 0.96),
    "grey": (0.6, 0.06, 0.58),
    "black": (0.65, 0.25, 0.16),
}
TEXTURES = ("plain", "striped", "dotted", "checked", "wavy", "spotted", "ringed")
_OVERSAMPLING = 4
_SECOND = len(Role)  # row of the pattern's colour, after those of the roles


def concept_names(n: int, seed: int = 0) -> list[str]:
    """Names of ``n`` concepts, sorted; a larger ``n`` with the same seed contains the smaller choice.

    Raises:
        InputError: More concepts than colours x textures x shapes (2,016).
    """
    every = [f"{c}_{t}_{s}" for c in COLORS for t in TEXTURES for s in SHAPES]
    if not 1 <= n <= len(every):
        raise InputError(
            expected=f"between 1 and {len(every)} drawn concepts",
            found=f"{n}",
            fix="Ask for fewer concepts, or give a folder of photos.",
        )
    order = np.random.default_rng(seed).permutation(len(every))
    return sorted(every[i] for i in order[:n])


def draw_image(concept: str, rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """Draw one image of a concept.

    Args:
        concept: A name as given by :func:`concept_names`.
        rng: Draws pose, light and background.
        size: Pixels on a side, default 64.

    Returns:
        uint8 RGB, shape (size, size, 3), anti-aliased.

    Raises:
        InputError: The name is not ``<colour>_<texture>_<shape>``.
    """
    color, texture, name = _parse(concept)
    shape, fixed = SHAPES[name], np.random.default_rng(zlib.crc32(concept.encode()))
    paints, parts = _paints(color, fixed), shape.draw(fixed)
    frequency, slant = fixed.uniform(2.2, 3.6), fixed.uniform(0, np.pi)

    scenes = shape.scenes if rng.random() < 0.85 else tuple(SCENES)
    picture = SCENES[scenes[rng.integers(len(scenes))]](rng, size)
    pose = _pose(rng, shape.turn)
    cover = _coverage(parts, pose, size)
    object_alpha = 1 - cover[Role.BACK]

    light = rng.uniform(-np.pi, 0)  # from the upper half
    toward = np.array([np.cos(light), np.sin(light)])
    picture = picture * _shadow(object_alpha, toward, size)[..., None]
    u, v = _object_coordinates(pose, size)
    pattern = _pattern(texture, u, v, frequency, slant, rng, size)[..., None]
    surface = paints[Role.BODY] * (1 - pattern) + paints[_SECOND] * pattern
    painted = sum(cover[role][..., None] * paints[role] for role in (Role.TRIM, Role.DARK, Role.LIGHT))
    painted = painted + cover[Role.BODY][..., None] * surface
    shade, gloss = _shading(object_alpha, toward, rng, size)
    picture = picture * cover[Role.BACK][..., None] + painted * shade[..., None]
    picture = picture + (gloss * object_alpha)[..., None]
    picture = picture * rng.uniform(0.88, 1.08) + rng.normal(0, 0.008, (size, size, 1))
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def write_procedural_images(
    images_dir: str | Path,
    *,
    n_concepts: int = 250,
    images_per_concept: int = 12,
    n_test: int = 100,
    size: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[str], list[str]]:
    """Draw a stimulus set with the design of THINGS as TVSD showed it. Same arguments, same bytes.

    Every concept gets ``images_per_concept`` training images; ``n_test`` concepts spread over the list get one
    more image, the test image. JPEG, quality 95, without chroma subsampling.

    Args:
        images_dir: Folder to write ``<concept>/<concept>_01b.jpg`` into.
        n_concepts: Number of concepts, default 250.
        images_per_concept: Training images a concept, default 12.
        n_test: Number of test images, each of another concept, default 100.
        size: Pixels on a side, default 64.
        seed: Chooses the concepts and draws the pictures.
        progress: Called as ``progress(done, total)`` after each image.

    Returns:
        Image ids (paths relative to ``images_dir``) of the training and of the test images, in order.

    Raises:
        InputError: More test images than concepts, or more concepts than can be drawn.
    """
    if not 0 <= n_test <= n_concepts:
        raise InputError(
            expected=f"at least {max(n_test, 0)} concepts, one for each test image",
            found=f"{n_concepts} concepts, {n_test} test images",
            fix="Raise n_concepts (--concepts); in Python, n_test may be lower.",
        )
    concepts = concept_names(n_concepts, seed)
    tested = {concepts[i] for i in np.linspace(0, n_concepts - 1, n_test).round().astype(int)}
    train: list[str] = []
    test: list[str] = []
    done = 0
    total = n_concepts * images_per_concept + n_test
    for concept in concepts:
        for k in range(1, images_per_concept + (concept in tested) + 1):
            is_test = k > images_per_concept
            suffix = "n" if is_test else "b" if k == 1 else "s"
            image_id = f"{concept}/{concept}_{k:02d}{suffix}.jpg"
            rng = np.random.default_rng([seed, zlib.crc32(concept.encode()), k])
            with write_aside(Path(images_dir) / image_id) as aside:
                picture = Image.fromarray(draw_image(concept, rng, size))
                picture.save(aside, format="JPEG", quality=95, subsampling=0)
            (test if is_test else train).append(image_id)
            done += 1
            if progress:
                progress(done, total)
    return train, test


def _parse(concept: str) -> tuple[str, str, str]:
    parts = concept.split("_")
    if len(parts) == 3 and parts[0] in COLORS and parts[1] in TEXTURES and parts[2] in SHAPES:
        return parts[0], parts[1], parts[2]
    raise InputError(
        expected="a concept named <colour>_<texture>_<shape>, e.g. 'red_striped_star'",
        found=repr(concept),
        fix="Take a name from concept_names().",
    )


def _paints(color: str, fixed: np.random.Generator) -> np.ndarray:
    """Colours of one concept: a row a role, then the pattern's colour; shape (6, 3)."""
    hue, saturation, value = COLORS[color]
    hue = (hue + fixed.uniform(-0.018, 0.018)) % 1
    value = np.clip(value + fixed.uniform(-0.05, 0.05), 0, 1)
    contrast = fixed.integers(3)
    second = (hue, saturation * 0.25, 0.97) if value < 0.75 else (hue, min(1, saturation + 0.1), value * 0.5)
    if contrast == 0:  # a complementary pattern
        second = ((hue + fixed.uniform(0.35, 0.65)) % 1, 0.65, 0.85 if value < 0.6 else 0.55)
    trim = ((hue + fixed.choice([-0.12, 0.12, 0.5])) % 1, 0.5, 0.85 if value < 0.6 else 0.5)
    rows = [
        (0, 0, 0),
        (hue, saturation, value),
        trim,
        (0.07, 0.45, 0.22),
        (0.13, 0.12, 0.97),
        second,
    ]
    return np.array([_rgb(*row) for row in rows])


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    ramp = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation * (1 - ramp))


def _pose(rng: np.random.Generator, turn: float) -> np.ndarray:
    """Affine map from object to picture coordinates (both -1 to 1), shape (2, 3)."""
    angle = np.radians(rng.uniform(-turn, turn))
    scale = rng.uniform(0.58, 0.82) * np.array([rng.choice([-1, 1]), 1]) * rng.uniform(0.9, 1.1, 2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = rng.uniform(-0.17, 0.17, 2) + np.array([0, 0.05])
    return np.column_stack([rotation * scale, shift])


def _coverage(parts: list, pose: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel that each role covers, shape (roles, size, size); sums to one over roles."""
    fine = size * _OVERSAMPLING
    labels = Image.new("L", (fine, fine), int(Role.BACK))
    pen = ImageDraw.Draw(labels)
    for role, points in parts:
        placed = (points @ pose[:, :2].T + pose[:, 2] + 1) * fine / 2
        pen.polygon([(float(x), float(y)) for x, y in placed], fill=int(role))
    fine_roles = np.asarray(labels)
    masks = (Image.fromarray((fine_roles == role) * np.uint8(255)) for role in Role)
    return np.stack([np.asarray(mask.reduce(_OVERSAMPLING)) for mask in masks]) / np.float32(255)


def _object_coordinates(pose: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel lies on the object, so that the pattern turns with it."""
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    grid = np.stack(np.meshgrid(axis, axis), axis=-1) - pose[:, 2]
    on_object = grid @ np.linalg.inv(pose[:, :2]).T
    return on_object[..., 0], on_object[..., 1]


def _pattern(
    texture: str,
    u: np.ndarray,
    v: np.ndarray,
    frequency: float,
    slant: float,
    rng: np.random.Generator,
    size: int,
) -> np.ndarray:
    """Weight of the pattern's colour in [0, 1], with soft edges; shape (size, size)."""
    a, b = np.cos(slant) * u + np.sin(slant) * v, np.cos(slant) * v - np.sin(slant) * u
    wave, sharp = 2 * np.pi * frequency / 2, size / 16
    if texture == "plain":
        field = np.full_like(u, -1.0)
    elif texture == "striped":
        field = np.sin(wave * a)
    elif texture == "dotted":
        field = np.cos(wave * a) + np.cos(wave * b) - 0.75
    elif texture == "checked":
        field = 2 * np.sin(wave * a) * np.sin(wave * b)
    elif texture == "wavy":
        field = np.sin(wave * a + 1.6 * np.sin(wave * b))
    elif texture == "spotted":
        field = 5 * (fractal_noise(rng, size, 1.8) - 0.6)
    else:
        field = np.sin(wave * 1.3 * np.hypot(u, v))
    return np.clip(field * sharp / 2 + 0.5, 0, 1)


def _blur(values: np.ndarray, radius: float) -> np.ndarray:
    picture = Image.fromarray((values * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def _shadow(alpha: np.ndarray, toward: np.ndarray, size: int) -> np.ndarray:
    """Factor that darkens the background on the side away from the light."""
    dx, dy = (-toward * size * 0.06).round().astype(int)
    return 1 - 0.45 * np.roll(_blur(alpha, size / 20), (dy, dx), axis=(0, 1))


def _shading(
    alpha: np.ndarray, toward: np.ndarray, rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse factor and gloss of a rounded relief that stands on the object's outline."""
    relief = _blur(alpha, size / 12)
    dy, dx = np.gradient(relief, 2 / size)
    facing = -(dx * toward[0] + dy * toward[1]) * rng.uniform(0.12, 0.22)
    return np.clip(1.02 - facing, 0.5, 1.35), 0.25 * np.clip(-facing - 0.25, 0, 1)
