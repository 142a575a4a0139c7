"""Image metrics: hand-computed cases, references, invariances."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import correlation

from neurobridge_tb.errors import InputError
from neurobridge_tb.metrics.feature_networks import FeatureNetwork
from neurobridge_tb.metrics.image_arrays import resize
from neurobridge_tb.metrics.image_metrics import (
    SeenImages,
    correlation_distance,
    pixcorr,
    ssim,
    two_way_scores,
)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)


def test_resize_matches_pillow(images):
    from PIL import Image

    ours = resize(images[:1], 12)[0].permute(1, 2, 0).numpy() * 255
    theirs = np.asarray(Image.fromarray(images[0]).resize((12, 12), Image.Resampling.BILINEAR))
    assert np.abs(ours - theirs).max() < 1.5


def test_pixcorr_of_itself_its_negative_and_affine_changes(images):
    np.testing.assert_allclose(pixcorr(images, images), 1)
    np.testing.assert_allclose(pixcorr(images, 255 - images), -1, atol=1e-6)
    np.testing.assert_allclose(pixcorr(images, images // 2 + 60), 1, atol=1e-3)


def test_pixcorr_is_pearson_at_425_pixels(images):
    other = images[::-1, :12, :12].copy()  # of another size
    a, b = resize(images, 425).flatten(1).numpy(), resize(other, 425).flatten(1).numpy()
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(pixcorr(torch.tensor(images), torch.tensor(other)), expected, atol=1e-6)


def test_pixcorr_of_a_plain_image_is_zero(images):
    assert not pixcorr(images, np.full_like(images, 77)).any()


def test_ssim_matches_the_published_call(images):
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    other = np.roll(images, 1, axis=1)
    grey = [rgb2gray(resize(x, 425).permute(0, 2, 3, 1).numpy()) for x in (images, other)]
    expected = structural_similarity(
        grey[0][0], grey[1][0], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    assert ssim(images[:1], other[:1])[0] == pytest.approx(expected, abs=1e-6)
    assert ssim(images[:1], images[:1])[0] == pytest.approx(1)


def test_two_way_by_hand():
    true = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    # reconstruction 0 is most like image 0; 1 most like image 0, then 1; 2 least like image 2
    made = np.array([[3.0, 1, 0], [2, 1, 0], [1, 2, 0]])
    np.testing.assert_allclose(two_way_scores(true, made), [1, 0.5, 0])
    assert two_way_scores(true, made).mean() == pytest.approx(0.5)


def test_two_way_matches_the_published_code():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(20, 30))
    made = true + 3 * rng.normal(size=true.shape)
    r = np.corrcoef(true, made)[:20, 20:]
    published = np.mean(np.sum(r < np.diag(r), axis=0)) / 19
    assert two_way_scores(torch.tensor(true), torch.tensor(made)).mean() == pytest.approx(published)


def test_two_way_of_one_answer_for_all_is_half_and_order_does_not_matter():
    rng = np.random.default_rng(1)
    true = rng.normal(size=(15, 8))
    assert two_way_scores(true, np.repeat(true.mean(0, keepdims=True), 15, 0)).mean() == pytest.approx(0.5)
    made, order = true + rng.normal(size=true.shape), rng.permutation(15)
    np.testing.assert_allclose(two_way_scores(true, made)[order], two_way_scores(true[order], made[order]))


def test_two_way_ties_and_features_without_variance_are_failures():
    true = np.random.default_rng(2).normal(size=(4, 5))
    assert two_way_scores(true, np.ones((4, 5))).mean() == 0
    assert two_way_scores(np.repeat(true[:1], 4, 0), true).mean() == 0


def test_correlation_distance_matches_scipy():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(6, 9)), rng.normal(size=(6, 9))
    expected = np.mean([correlation(x, y) for x, y in zip(a, b, strict=True)])
    assert correlation_distance(a, b) == pytest.approx(expected)


def test_row_holds_what_can_be_had_and_names_the_rest(images):
    calls = []

    def extract(pictures):
        calls.append(len(pictures))
        return {"two-way toy": pictures.reshape(len(pictures), -1).astype(np.float32)}

    networks = [
        FeatureNetwork(("two-way toy",), "two-way", extract),
        FeatureNetwork(("distance far",), "distance", needs="needs a file"),
    ]
    shown = SeenImages(images, networks)
    metrics, unavailable = shown.compare(images)
    assert list(metrics) == ["PixCorr", "SSIM", "two-way toy", "top-1 toy"]
    assert metrics["two-way toy"] == metrics["top-1 toy"] == 1
    assert unavailable == {"distance far": "needs a file"}
    turned = shown.compare(images[::-1])[0]  # one of three stays in its place
    assert turned["two-way toy"] < 1 and turned["top-1 toy"] == pytest.approx(1 / 3)
    assert len(calls) == 3  # the seen images' features are extracted once


def test_faults_are_named(images):
    with pytest.raises(InputError, match="2 reconstructed, 3 seen"):
        pixcorr(images, images[:2])
    with pytest.raises(InputError, match="float"):
        pixcorr(images / 255, images)
    with pytest.raises(InputError, match="two images"):
        two_way_scores(np.ones((1, 4)), np.ones((1, 4)))
