"""Where there is no terminal, lines say how far a job is and how long it still takes."""

import pytest

from neurobridge_tb import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_time_left_counts_from_what_was_done_at_the_first_line(clock, capsys):
    with progress.progress_bars() as show:
        clock[0] = 60.0
        show("Flow: loss 1.0", 500, 1000)  # a resumed stage: how fast it is, is not known yet
        clock[0] = 120.0
        show("Flow: loss 0.9", 550, 1000)  # 50 steps a minute
    assert capsys.readouterr().out.splitlines() == ["Flow: loss 1.0, 50%", "Flow: loss 0.9, 55%, 9 min left"]


def test_lines_are_printed_every_half_minute(clock, capsys):
    with progress.progress_bars() as show:
        for second in range(100):
            clock[0] = float(second)
            show("Reading", second, 100)
    assert len(capsys.readouterr().out.splitlines()) == 3
