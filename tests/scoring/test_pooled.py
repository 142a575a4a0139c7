"""Pooled decoders: weights are found within the training rows, and one good decoder is left alone."""

import numpy as np
import pytest

from neurobridge_tb.data.targets import Examples
from neurobridge_tb.scoring.decoding.decoding_splits import decode, pooled, split_rows


def examples_of(label):
    n = len(label)
    time, text = np.arange(n, dtype=float), np.full(n, "a")
    return Examples(text, time, time, time + 1, label, {}, np.full(n, "train"))


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_a_decoder_of_noise_gets_no_weight_and_two_that_differ_add_up(kind):
    rng = np.random.default_rng(0)
    value = rng.normal(size=120)
    examples = examples_of(np.where(value > 0, "up", "down") if kind == "classes" else value)
    parts = split_rows(examples, folds=4, seed=0)
    good, second, noise = (
        decode(x[:, None], examples, parts)
        for x in (value + rng.normal(size=120), value + rng.normal(size=120), rng.normal(size=120))
    )

    def pool(**decoders):
        return pooled(decoders, examples, parts, simplest="good")

    quality = {
        name: its.quality(examples).mean()
        for name, its in (
            ("good", good),
            ("noise", noise),
            ("with noise", pool(good=good, noise=noise)),
            ("both", pool(good=good, second=second)),
        )
    }
    assert quality["with noise"] > quality["noise"] and abs(quality["with noise"] - quality["good"]) < 0.06
    assert quality["both"] > quality["good"]
    np.testing.assert_allclose(pool(good=good).outputs, good.outputs, atol=1e-6)
    guess = pool(good=noise, second=decode(rng.normal(size=120)[:, None], examples, parts))
    np.testing.assert_allclose(guess.outputs, noise.outputs, atol=1e-6)  # in doubt the simplest stays
    assert guess.made_of == (("good",),) * 4 and ("good", "second") in pool(good=good, second=second).made_of
