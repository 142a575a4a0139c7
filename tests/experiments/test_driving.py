"""The driver and its launchers: order, failures, lost workers, and that nothing runs twice."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neurobridge_tb.errors import InputError, MissingExtraError
from neurobridge_tb.experiments import outcome
from neurobridge_tb.experiments.experiment import settle_experiment
from neurobridge_tb.experiments.job import Job
from neurobridge_tb.experiments.launchers import LauncherConfig, launch
from neurobridge_tb.experiments.recipe import read_recipe
from neurobridge_tb.experiments.run import drive

# Workers import this file's functions by value: they know nothing of the tests.
WORK = """
import os, time
from pathlib import Path

def work(key, folder, seconds=0.0, wait_for_release=()):
    folder = Path(folder)
    with open(folder / f"{key}.starts", "a") as file:
        file.write(f"{os.getpid()}\\n")
    first = (folder / f"{key}.starts").read_text().count("\\n") == 1
    while key in wait_for_release and first and not (folder / "released").exists():
        time.sleep(0.05)
    time.sleep(seconds)
    (folder / f"{key}.done").touch()
"""


def work_function():
    scope = {"__name__": "__main__"}
    exec(WORK, scope)  # noqa: S102
    return scope["work"]


def jobs(**needs):
    return {key: Job(key, "pretrain", {}, tuple(of)) for key, of in needs.items()}


def done_in(folder):
    return lambda key: True if (Path(folder) / f"{key}.done").exists() else None


def starts(folder):
    return {path.stem: path.read_text().count("\n") for path in Path(folder).glob("*.starts")}


class Ended:
    """A task that has ended."""

    def __init__(self, error=None):
        self.error = error

    def done(self):
        return True

    def exception(self):
        return self.error


def test_a_job_starts_after_those_that_it_needs_and_what_fails_stops_only_what_needs_it():
    order, states = [], {}

    def submit(job):
        order.append(job.key)
        states[job.key] = job.key != "b"
        return Ended()

    said = []
    wanted = jobs(a=(), b=("a",), c=("a",), d=("b", "c"), e=("d",), f=("c",))
    ended = drive(wanted, submit, states.get, say=lambda *x: said.append(x))
    assert order == ["a", "b", "c", "f"]
    assert ended == {"a": "done", "b": "failed", "c": "done", "d": "left out", "e": "left out", "f": "done"}
    assert set(said) == set(ended.items())


def test_what_is_done_is_not_handed_in():
    assert drive(jobs(a=(), b=("a",)), None, lambda key: True) == {"a": "done", "b": "done"}


def test_a_lost_job_is_run_again_three_times_at_most():
    order, states = [], {}

    def submit(job):
        order.append(job.key)
        if order.count(job.key) == 2 and job.key == "a":
            states["a"] = True
        return Ended(RuntimeError("worker died"))

    ended = drive(jobs(a=(), b=("a",), c=()), submit, states.get)
    assert sorted(order) == ["a", "a", "c", "c", "c"] or sorted(order) == ["a", "a", "b", "b", "b", "c", "c", "c"]
    assert ended["a"] == "done" and ended["c"].startswith("lost (worker died")


@pytest.mark.parametrize("name", ["basic", "joblib", "submitit_local"])
def test_every_launcher_of_one_machine_runs_what_it_is_given(name, tmp_path):
    wanted = jobs(a=(), b=("a",), c=())
    work, config = work_function(), LauncherConfig(name, workers=2)
    with launch(config, tmp_path / "logs") as submit:
        ended = drive(
            wanted, lambda job: submit(work, job.key, str(tmp_path)), done_in(tmp_path), at_once=config.at_once
        )
    assert set(ended.values()) == {"done"} and starts(tmp_path) == {"a": 1, "b": 1, "c": 1}


def test_a_killed_worker_of_a_ray_cluster_costs_its_own_job_a_second_start_and_no_other(tmp_path):
    """Two workers; that of `a` is killed while it runs. `b` and `c` are done meanwhile, and are not run again."""
    wanted, work = jobs(a=(), b=(), c=(), d=("a",)), work_function()
    killed = []

    def is_done(key):
        others = all((tmp_path / f"{k}.done").exists() for k in "bc")
        if others and not killed and (tmp_path / "a.starts").exists():
            killed.append(int((tmp_path / "a.starts").read_text()))
            os.kill(killed[0], signal.SIGKILL)
        return done_in(tmp_path)(key)

    class Watched:
        def __init__(self, task):
            self.task = task

        def done(self):
            is_done("a")
            return self.task.done()

        def exception(self):
            return self.task.exception()

    with launch(LauncherConfig("ray", workers=2), tmp_path / "logs") as submit:
        ended = drive(
            wanted, lambda job: Watched(submit(work, job.key, str(tmp_path), 0.0, ("a",))), is_done, at_once=2
        )
    assert set(ended.values()) == {"done"} and killed
    assert starts(tmp_path) == {"a": 2, "b": 1, "c": 1, "d": 1}


DRIVER = """
import sys
from pathlib import Path
exec(Path(sys.argv[2]).read_text())
from neurobridge_tb.experiments.job import Job
from neurobridge_tb.experiments.launchers import LauncherConfig, launch
from neurobridge_tb.experiments.run import drive

folder = sys.argv[1]
wanted = {f"j{k}": Job(f"j{k}", "pretrain", {}, (f"j{k - 1}",) if k else ()) for k in range(5)}
with launch(LauncherConfig(), Path(folder)) as submit:
    drive(wanted, lambda job: submit(work, job.key, folder, 0.0, ("j2",)),
          lambda key: True if Path(folder, f"{key}.done").exists() else None)
"""


def test_a_killed_driver_goes_on_with_what_was_not_done(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(tmp_path / "work.py")]
    first = subprocess.Popen(command)
    for _ in range(1200):
        if (tmp_path / "j2.starts").exists():
            break
        time.sleep(0.05)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)
    assert starts(tmp_path) == {"j0": 1, "j1": 1, "j2": 2, "j3": 1, "j4": 1}


def test_an_unknown_launcher_is_refused():
    with pytest.raises(InputError, match=r"launcher=basic\|joblib\|ray"):
        launch(LauncherConfig("dask"), Path("logs"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"launcher": "slurm"}, r"launcher=basic\|joblib\|ray"),
        ({"launcher": None}, "values that fit launcher"),
        ({"launcher.workers": "many"}, "'launcher.workers': 'many'"),
        ({"launcher.workers": 0}, "launcher.workers of 1 or more"),
        ({"launcher.gpus": -1}, "launcher.gpus of 0 or more"),
        ({"launcher.processes": 2}, "workers, cpus"),
    ],
)
def test_wrong_settings_of_a_launcher_are_refused_before_anything_is_planned(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        settle_experiment(read_recipe("masks"), {"workspace": tmp_path, **settings}, "")
    assert not list(tmp_path.iterdir())


def test_a_launcher_that_is_not_installed_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with (
        pytest.raises(MissingExtraError, match=r"neurobridge-tb\[launchers\]"),
        launch(LauncherConfig("submitit_local"), tmp_path),
    ):
        pass


def test_slurm_is_not_pretended(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="srun"), launch(LauncherConfig("submitit_slurm"), tmp_path):
        pass


def test_where_the_file_system_has_no_locks_a_job_is_run(tmp_path, monkeypatch, capsys):
    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with outcome._alone(tmp_path):
        assert "has no locks" in capsys.readouterr().out
