"""Drawn stimuli: names, looks, determinism, files."""

import numpy as np
import pytest
from PIL import Image

from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation.procedural import COLORS, TEXTURES, concept_names, draw_image, write_procedural_images
from neurobridge_tb.simulation.scenery import SCENES
from neurobridge_tb.simulation.shapes import SHAPES, Role

N_POSSIBLE = len(COLORS) * len(TEXTURES) * len(SHAPES)


def test_as_many_concepts_as_things():
    names = concept_names(1854)
    assert len(set(names)) == 1854
    assert names == sorted(names)
    assert all(name.count("_") == 2 for name in names)


def test_smaller_choice_is_part_of_the_larger():
    assert set(concept_names(40, seed=3)) < set(concept_names(90, seed=3))
    assert concept_names(40, seed=3) != concept_names(40, seed=4)


@pytest.mark.parametrize("n", [0, N_POSSIBLE + 1])
def test_impossible_number_of_concepts(n):
    with pytest.raises(InputError, match=str(N_POSSIBLE)):
        concept_names(n)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_drawn_inside_its_frame_and_scene_exists(shape):
    parts = SHAPES[shape].draw(np.random.default_rng(0))
    assert any(role == Role.BODY for role, _ in parts)
    for _, points in parts:
        assert points.ndim == 2 and points.shape[1] == 2
        assert np.abs(points).max() < 1.3
    assert set(SHAPES[shape].scenes) <= set(SCENES)


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("size", [32, 64, 96])
def test_image_is_rgb_of_the_size_asked_for(texture, size):
    image = draw_image(f"teal_{texture}_mug", np.random.default_rng(0), size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert image.std() > 10


@pytest.mark.parametrize("scene", SCENES)
def test_scenes_are_pictures(scene):
    picture = SCENES[scene](np.random.default_rng(0), 48)
    assert picture.shape == (48, 48, 3)
    assert picture.min() >= -1e-6 and picture.max() <= 1 + 1e-6


def test_same_generator_same_image_other_generator_another():
    first, again, other = (draw_image("red_striped_star", np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_images_of_a_concept_resemble_each_other():
    """Mean colour histograms: nearer within a concept than between concepts."""

    def histogram(concept, start):
        images = np.stack([draw_image(concept, np.random.default_rng(start + k)) for k in range(8)])
        levels = (images[:, 12:52, 12:52] // 64).reshape(-1, 3) @ np.array([16, 4, 1])
        return np.bincount(levels, minlength=64) / len(levels)

    names = ["red_striped_star", "blue_plain_fish", "white_dotted_mug", "green_checked_house", "black_wavy_car"]
    first, second = (np.array([histogram(name, start) for name in names]) for start in (0, 100))
    distance = np.abs(first[:, None] - second[None]).sum(-1)
    assert (distance.argmin(axis=1) == np.arange(len(names))).all()


def test_unknown_concept():
    with pytest.raises(InputError, match="red_striped_star"):
        draw_image("aardvark", np.random.default_rng(0))


def test_files_are_named_as_things_names_them(tmp_path):
    train, test = write_procedural_images(tmp_path, n_concepts=4, images_per_concept=2, n_test=2, size=32)
    assert len(train) == 8 and len(test) == 2
    assert train == sorted(train) and test == sorted(test)
    concept = train[0].split("/")[0]
    assert train[:2] == [f"{concept}/{concept}_01b.jpg", f"{concept}/{concept}_02s.jpg"]
    assert all(name.endswith("_03n.jpg") for name in test)
    assert len({name.split("/")[0] for name in test}) == 2
    on_disk = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert on_disk == {*train, *test}
    with Image.open(tmp_path / test[0]) as image:
        assert image.format == "JPEG" and image.mode == "RGB" and image.size == (32, 32)


def test_an_image_does_not_depend_on_how_many_are_drawn(tmp_path):
    few, _ = write_procedural_images(tmp_path / "a", n_concepts=3, images_per_concept=1, n_test=0, size=32)
    write_procedural_images(tmp_path / "b", n_concepts=6, images_per_concept=2, n_test=3, size=32)
    for name in few:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_more_test_images_than_concepts(tmp_path):
    with pytest.raises(InputError, match="at least 5 concepts[\\s\\S]*4 concepts, 5 test"):
        write_procedural_images(tmp_path, n_concepts=4, n_test=5)
