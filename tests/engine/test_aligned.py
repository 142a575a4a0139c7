"""What is to be said of an alignment that others are scored by."""

from neurobridge_tb.engine.aligned import unfinished


def test_an_alignment_that_was_cut_is_scored_with_a_word(tmp_path):
    assert "was not finished: its best epoch so far is scored" in unfinished(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    assert unfinished(tmp_path) is None
