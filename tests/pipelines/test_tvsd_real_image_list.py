"""The published ``things_imgs.mat``, read whole by the pipeline's own reader: what the file says is asserted here."""

import gzip
import shutil

import numpy as np
import pytest


@pytest.mark.recordings
def test_the_published_image_list(recordings_dir, pipeline_module, tmp_path):
    path = tmp_path / "things_imgs.mat"
    with gzip.open(recordings_dir / "tvsd" / "things_imgs.mat.gz") as packed, open(path, "wb") as file:
        shutil.copyfileobj(packed, file)
    train, test = (pipeline_module["read_image_ids"](path, part) for part in ("train", "test"))
    assert (len(train), len(test)) == (22_248, 100)
    assert len({*train, *test}) == 22_348
    concepts, counts = np.unique(pipeline_module["concepts_of"](train), return_counts=True)
    assert len(concepts) == 1854 and (counts == 12).all()
    test_concepts = pipeline_module["concepts_of"](test)
    assert len(set(test_concepts)) == 100 and set(test_concepts) <= set(concepts)
    assert train[0] == "aardvark/aardvark_01b.jpg" and test[0] == "alligator/alligator_14n.jpg"

    args = pipeline_module["parser"].parse_args(["--exclude-test-concepts", "--valid-by-concept"])
    split = pipeline_module["choose_splits"]({"train": train, "test": test}, args)
    assert {s: int((split == s).sum()) for s in ("train", "valid", "excluded")} == {
        "train": 19_992,
        "valid": 1_056,
        "excluded": 1_200,
    }
