"""Photos of the user's own as stimuli."""

import numpy as np
import pytest
from PIL import Image

from neurobridge_tb.cli.demo_stages import stages
from neurobridge_tb.datasets import StimulusImages
from neurobridge_tb.datasets.image_binding import find_images
from neurobridge_tb.errors import InputError
from neurobridge_tb.simulation.shown_images import choose_photos, class_photos, load_images


def save(path, value=128, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def choose(folder, *, n_concepts=4, images_per_concept=3, n_test=2, seed=0):
    sizes = dict(n_concepts=n_concepts, images_per_concept=images_per_concept, n_test=n_test)
    return choose_photos(folder, **sizes, rng=np.random.default_rng(seed))


@pytest.fixture
def class_folders(tmp_path):
    for concept in "abcdef":
        for k in range(5):
            save(tmp_path / concept / f"{k}.JPEG")
    (tmp_path / "words.txt").write_text("not a photo")
    return tmp_path


def test_class_folders(class_folders):
    train, test = choose(class_folders)
    assert len(train) == 12 and len(test) == 2 and not set(train) & set(test)
    assert train == sorted(train) and test == sorted(test)
    concepts = {name.split("/")[0] for name in train}
    assert len(concepts) == 4
    assert len({name.split("/")[0] for name in test}) == 2 and {name.split("/")[0] for name in test} <= concepts
    assert choose(class_folders) == (train, test)
    assert choose(class_folders, seed=1) != (train, test)


def test_few_classes_give_more_images_each(class_folders):
    train, test = choose(class_folders, n_concepts=6, images_per_concept=10)
    assert len(train) == 28 and len(test) == 2


def test_in_a_flat_folder_every_photo_is_a_class(tmp_path):
    photos, binding = tmp_path / "photos", tmp_path / "photos.json"
    for k in range(9):
        save(photos / f"n{k}_thing.png", value=20 * k)
    with pytest.raises(InputError, match="9 images in no class folder"):
        choose(photos)
    source = class_photos(photos, binding)
    train, test = choose(source)
    assert len(train) == 7 and len(test) == 2
    assert sorted(train + test) == [f"n{k}_thing/n{k}_thing.png" for k in range(9)] == find_images(source)
    assert StimulusImages(source, train).path(train[0]).parent == photos
    assert load_images(source, ["n3_thing/n3_thing.png"], 8).mean() == 60


def test_class_folders_keep_their_ids(class_folders, tmp_path):
    assert class_photos(class_folders, tmp_path / "photos.json") == class_folders
    save(class_folders / "stray.jpg")
    assert class_photos(class_folders, tmp_path / "photos.json") == class_folders
    assert not (tmp_path / "photos.json").exists()


def test_the_demo_names_the_binding_of_a_flat_folder_everywhere(tmp_path):
    save(tmp_path / "photos" / "a.png")
    commands = stages(tmp_path / "ws", tmp_path / "photos", seed=0)
    binding = str(tmp_path / "ws" / "photos.json")
    assert binding in commands["simulate"]
    for stage in ("embed", "train-decoder", "reconstruct"):
        assert f"images={binding}" in commands[stage]


def test_photos_become_central_squares(tmp_path):
    image = np.zeros((30, 50, 3), np.uint8)
    image[:, 10:40] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    loaded = load_images(tmp_path, ["a.png", "grey.png"], 16)
    assert loaded.shape == (2, 16, 16, 3) and loaded.min() > 220


def test_unreadable_image_is_named(tmp_path):
    save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="bad.jpg"):
        load_images(tmp_path, ["good.png", "bad.jpg"], 16)


def test_truncated_image_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="a.jpg"):
        load_images(tmp_path, ["a.jpg"], 16)


def test_an_image_of_absurd_size_is_named(tmp_path, monkeypatch):
    save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="huge.png"):
        load_images(tmp_path, ["huge.png"], 16)


def test_folder_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(InputError, match="none"):
        choose(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        choose(tmp_path / "missing")


def test_more_test_images_than_classes(class_folders):
    with pytest.raises(InputError, match="6 classes"):
        choose(class_folders, n_concepts=9, n_test=7)


def test_nothing_left_to_train_on(tmp_path):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "1.png")
    with pytest.raises(InputError, match="2 photos"):
        choose(tmp_path)
