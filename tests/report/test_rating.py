"""The blind test on a page: what it holds, and how answers are scored."""

import base64
import io
import json
import re

import h5py
import numpy as np
import pytest
from fabricated import N_IMAGES, write_reconstruct
from PIL import Image

from neurobridge_tb.errors import InputError
from neurobridge_tb.report.page import build_report
from neurobridge_tb.report.rating import RatingTest, read_ratings, write_rating_page


@pytest.fixture
def run(tmp_path):
    write_reconstruct(tmp_path)
    return tmp_path / "runs" / "reconstruct"


def save_answers(run, answers, rater="ab12", other=None):
    (run / "ratings").mkdir(exist_ok=True)
    test = RatingTest.of_run(run)
    content = {"run": test.fingerprint, "backend": test.backend, "rater": rater, "answers": answers} | (other or {})
    (run / "ratings" / f"{rater}.json").write_text(json.dumps(content))


def right(run):
    return [0 if left else 1 for left in RatingTest.of_run(run).left]


def test_the_page_needs_nothing_else_and_does_not_tell_which_was_seen(run):
    html = write_rating_page(run).read_text(encoding="utf-8")
    assert "://" not in html and "cat_0" not in html and 'seen"' not in html
    content = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    test, pixels = RatingTest.of_run(run), h5py.File(run / "reconstructions.h5")["seen"]
    assert set(content) == {"test", "trials"} and len(content["trials"]) == N_IMAGES
    assert content["test"] == {"run": test.fingerprint, "backend": "flow"}

    def decoded(address):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))), float)

    for trial, image, left in zip(content["trials"], test.order, test.left, strict=True):
        distance = [np.abs(decoded(address) - pixels[image]).mean() for address in trial["pair"]]
        assert set(trial) == {"made", "pair"} and (distance[0] < distance[1]) == left
    assert sorted(test.order) == list(range(N_IMAGES)) and (test.order != test.other).all()
    assert 0.2 < test.left.mean() < 0.8


def test_answers_are_scored_over_images_with_the_number_of_people(run, tmp_path):
    answers = right(run)
    save_answers(run, answers, "one")
    save_answers(run, [1 - a if k < 6 else a for k, a in enumerate(answers)][:-3] + [None] * 3, "two")
    (found,) = read_ratings(run)
    assert (found.raters, found.answers) == (2, 2 * N_IMAGES - 3)
    assert found.score["value"] == pytest.approx((N_IMAGES - 6 + 6 * 0.5) / N_IMAGES)
    assert found.score["low"] < found.score["value"] < found.score["high"]
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert "picked in 90 % of 57 trials" in text and "by 2 people." in text


def test_answers_to_other_pictures_or_of_another_kind_are_refused(run):
    save_answers(run, right(run), other={"run": "0123"})
    with pytest.raises(InputError, match="another run"):
        read_ratings(run)
    save_answers(run, right(run)[:-1])
    with pytest.raises(InputError, match="another run"):
        read_ratings(run)
    save_answers(run, [2] * N_IMAGES)
    with pytest.raises(InputError, match="neurobridge rate"):
        read_ratings(run)
    (run / "ratings" / "ab12.json").write_text("{}")
    with pytest.raises(InputError, match="neurobridge rate"):
        read_ratings(run)


def test_pictures_drawn_anew_make_old_answers_those_of_another_run(run):
    save_answers(run, right(run))
    assert read_ratings(run)[0].score["value"] == 1
    with h5py.File(run / "reconstructions.h5", "r+") as file:
        file["flow"][0] = 255 - file["flow"][0]
    with pytest.raises(InputError, match="drawn anew"):
        read_ratings(run)


def test_the_same_answers_twice_are_refused(run):
    save_answers(run, right(run))
    (run / "ratings" / "copy.json").write_bytes((run / "ratings" / "ab12.json").read_bytes())
    with pytest.raises(InputError, match="once"):
        read_ratings(run)


def test_runs_and_backends_that_are_not_there(run, tmp_path):
    with pytest.raises(InputError, match="neurobridge reconstruct"):
        write_rating_page(tmp_path)
    with pytest.raises(InputError, match="nearest, flow"):
        write_rating_page(run, backend="other")
