"""The driver: starts each job once those that it needs are done, and goes on where others fail."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from neurobridge_tb.experiments.job import Job

_ATTEMPTS = 3  # of a job whose worker is lost
_POLL_S = 0.2


class Task(Protocol):
    """A job that was handed to a launcher: a future, or a job of submitit."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def exception(self) -> Any:
        """What went wrong, once it has ended."""


def drive(
    jobs: Mapping[str, Job],
    submit: Callable[[Job], Task],
    is_done: Callable[[str], bool | None],
    *,
    at_once: int | None = None,
    say: Callable[[str, str], None] = lambda key, state: None,
) -> dict[str, str]:
    """Run jobs that are not done.

    A job whose worker is lost (it ends without an outcome) is handed in again, three times at most.

    Args:
        jobs: By key, each after those that it needs.
        submit: Hands a job to a launcher.
        is_done: True: done; False: failed; None: neither, for a key.
        at_once: At most so many are handed in at a time. Default: no limit.
        say: Takes the key and the state of each job that ends: "done", "failed", "lost" or "left out".

    Returns:
        The last state of each job; "done" also for those that were done before.
    """
    states = {key: "done" for key in jobs if is_done(key)}
    waiting = [key for key in jobs if key not in states]
    running: dict[str, Task] = {}
    lost: Counter[str] = Counter()

    def end(key: str, state: str) -> None:
        states[key] = state
        say(key, state)

    while waiting or running:
        for key in list(waiting):
            of_needs = [states.get(need) for need in jobs[key].needs]
            if any(state not in (None, "done") for state in of_needs):
                waiting.remove(key)
                end(key, "left out")
            elif all(of_needs) and (at_once is None or len(running) < at_once):
                waiting.remove(key)
                running[key] = submit(jobs[key])
        ended = [key for key, task in running.items() if task.done()]
        for key in ended:
            error = running.pop(key).exception()
            done = is_done(key)
            if done is None:
                lost[key] += 1
                if lost[key] < _ATTEMPTS:
                    say(key, f"lost ({error}), is run again")
                    waiting.insert(0, key)
                    continue
            end(key, {True: "done", False: "failed", None: f"lost ({error})"}[done])
        if running and not ended:
            time.sleep(_POLL_S)
    return states
