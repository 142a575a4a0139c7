"""What the areas of the virtual ventral stream respond to."""

import numpy as np
import pytest

from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation.procedural import draw_image
from neurobridge_tb.simulation.ventral_stream import VentralStream

CONCEPTS = ["red_striped_star", "blue_plain_fish", "white_dotted_mug", "green_checked_house", "black_wavy_car"]
PER_CONCEPT = 8


@pytest.fixture(scope="module")
def images():
    return np.stack([draw_image(concept, np.random.default_rng(k)) for concept in CONCEPTS for k in range(PER_CONCEPT)])


@pytest.fixture(scope="module")
def stream():
    return VentralStream("F", seed=0)


@pytest.fixture(scope="module")
def drive(stream, images):
    return stream.drive(images)


def test_drive_is_a_rate_for_every_channel(drive, images):
    assert drive.shape == (len(images), 1024) and drive.dtype == np.float32
    assert np.isfinite(drive).all() and (drive >= 0).all()
    np.testing.assert_allclose(drive.std(axis=0), 1, atol=1e-3)


def test_order_of_images_does_not_matter(stream, images, drive):
    order = np.random.default_rng(0).permutation(len(images))
    np.testing.assert_allclose(stream.drive(images[order]), drive[order], atol=1e-3)


def test_another_seed_is_another_animal(images, drive):
    other = VentralStream("F", seed=1).drive(images)
    assert np.abs(other - drive).mean() > 0.3


def test_it_tolerates_a_shift_that_v1_does_not(stream, images):
    """Correlation of the population's responses to an image and to the image moved by five pixels."""
    both = stream.drive(np.concatenate([images, np.roll(images, 5, axis=(1, 2))]))
    both -= both.mean(axis=0)
    kept = {}
    for area in ("V1", "IT"):
        before, after = np.split(both[:, stream.electrodes.area == area], 2)
        kept[area] = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(before, after, strict=True)])
    assert kept["IT"] > kept["V1"] + 0.1


def test_v1_is_local(stream, images, drive):
    """A change in the top-left corner, which the implants do not see, leaves V1 as it is but not IT."""
    changed = images.copy()
    changed[-1, :10, :10] = 255 - changed[-1, :10, :10]
    area = stream.electrodes.area
    moved = np.abs(stream.drive(changed)[-1] - drive[-1])
    assert np.median(moved[area == "V1"]) < 0.01 < np.median(moved[area == "IT"])


def linear_share(drive, target):
    """R^2 on held-out images of a linear map from the sites' responses to ``target`` (n, sites)."""
    x, y = (v - v.mean(0) for v in (drive, target))
    half = len(x) // 2
    weights = np.linalg.solve(x[:half] @ x[:half].T + 10 * np.eye(half), y[:half])
    return 1 - ((y[half:] - x[half:] @ (x[:half].T @ weights)) ** 2).sum() / (y[half:] ** 2).sum()


def test_difficulty_makes_the_way_back_nonlinear(images, drive):
    """What a site preferred before is less of a linear function of the responses of all sites now."""
    order = np.random.default_rng(0).permutation(len(images))
    harder = VentralStream("F", seed=0, difficulty=1.0).drive(images)
    assert np.isfinite(harder).all() and (harder >= 0).all()
    np.testing.assert_allclose(harder.std(axis=0), 1, atol=1e-3)
    assert linear_share(harder[order], drive[order]) < linear_share(drive[order], drive[order]) - 0.05
    np.testing.assert_array_equal(VentralStream("F", seed=0, difficulty=0.0).drive(images), drive)


def test_negative_difficulty_is_refused():
    with pytest.raises(InputError, match="-1"):
        VentralStream("F", difficulty=-1)
