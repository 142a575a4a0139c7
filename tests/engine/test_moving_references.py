"""A recording that was not trained goes on being read: its reference moves along, and never past a window."""

import numpy as np
import pytest
import torch

from neurobridge_tb._upstream import Interval
from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.data.forecast_windows import ForecastLoaders
from neurobridge_tb.engine.moving_references import MovingReferences, latest, passed
from tests.engine.test_references import SECONDS, SPLITS, introduced, known, recordings


def moving(
    root, other_after: float = np.inf, seconds: float = 60.0, splits: dict = SPLITS
) -> tuple[MovingReferences, ForecastLoaders]:
    dataset = recordings(root, other_after, splits)
    model, reference = introduced(dataset)
    loaders = ForecastLoaders(ForecastConfig(windows="continuous", stride=2), dataset, model)
    references = MovingReferences(model.eval(), dataset, loaders)
    references.introduce("new", reference, seconds=seconds)
    return references, loaders


def test_a_batch_is_read_with_all_that_came_before_it(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    same, changed = (moving(folder, other) for folder, other in zip(folders, (np.inf, 28.5), strict=True))
    seen = []
    for references, loaders in (same, changed):
        at = {}
        for batch in references.follow(loaders.of_split("test")):
            at[float(batch["absolute_start"].min())] = known(references.model)
        seen.append(at)
    assert len(seen[0]) > 1
    first, *later = seen[0]
    assert first == pytest.approx(27.0)
    for begin in seen[0]:
        for name, value in seen[0][begin].items():
            assert torch.equal(value, seen[1][begin][name]) or begin > 28.5, name
    end = max(seen[0])
    assert not torch.equal(seen[0][first]["rows"], seen[0][end]["rows"])
    assert torch.equal(seen[0][first]["departure"], seen[0][end]["departure"])


def test_the_first_reference_stays_until_a_sixteenth_more_has_passed(tmp_path):
    references, _ = moving(tmp_path)
    (since, first), *later = references._found["new"]
    assert since == -np.inf and first.seconds == SECONDS
    ends = [float(reference.window.end[-1]) for _, reference in later]
    assert ends == pytest.approx([since for since, _ in later])
    assert ends[0] == pytest.approx(27.0) and np.all(np.diff(ends) >= np.array(ends[1:]) / 16)
    assert all(reference.window.start[0] == 0 for _, reference in later)


def test_a_reference_is_never_longer_than_it_may_be(tmp_path):
    references, _ = moving(tmp_path, seconds=SECONDS)
    later = references._found["new"][1:]
    assert later
    for since, reference in later:
        assert reference.seconds == pytest.approx(SECONDS)
        assert float(reference.window.end[-1]) == pytest.approx(since)


def test_a_short_reference_is_fitted_anew_sixteen_times_at_most(tmp_path):
    references, _ = moving(tmp_path, seconds=1.0)
    since = [since for since, _ in references._found["new"][1:]]
    assert 1 < len(since) <= 16 and np.diff(since).min() >= 3.0 / 16  # of a test of 3 s


def test_a_recording_that_is_only_scored_needs_no_validation_split(tmp_path):
    references, loaders = moving(tmp_path, splits={name: SPLITS[name] for name in ("train", "test")})
    assert len(list(references.follow(loaders.of_split("test"))))
    later = references._found["new"][1:]
    assert later and later[-1][1].seconds == pytest.approx(24.0 + later[-1][0] - 27.0)


def test_of_what_passed_trials_stay_whole():
    train, test = (Interval(start=np.arange(*ends), end=np.arange(*ends) + 0.9) for ends in ((0.0, 3.0), (3.0, 6.0)))
    before = passed([test, train], 4.0, cut=False)
    assert before.start.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert passed([test, train], 3.5, cut=False).end.tolist() == [0.9, 1.9, 2.9]
    assert passed([test, train], 3.5, cut=True).end.tolist() == [0.9, 1.9, 2.9, 3.5]
    assert latest(before, 2.0, cut=False).start.tolist() == [2.0, 3.0]
    assert latest(before, 2.0, cut=True).start.tolist() == pytest.approx([1.7, 2.0, 3.0])
    assert len(latest(before, 0.5, cut=False)) == 0
