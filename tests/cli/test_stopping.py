"""A job that is stopped says so and ends with a code of its own; run again, it goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest


@pytest.fixture(autouse=True)
def signals_that_nobody_ignores():
    """What the tests were started with, as in a shell's background or by nohup, jobs would ignore as well."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ran(code: str, **options) -> subprocess.CompletedProcess:
    """A process of its own that runs ``code``."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, **options)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_of_terminals_and_clusters_have_a_sentence_of_the_job_alone(number):
    code = (
        "import os, signal\n"
        "from neurobridge_tb.cli.signals import end_with_a_sentence\n"
        "with end_with_a_sentence():\n"
        "    worker = os.fork()\n"
        "    if worker: os.waitpid(worker, 0)\n"
        f"    os.kill(os.getpid(), {number.value})\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}
    job = ran(code, env=environment)
    assert job.returncode == 128 + number
    assert job.stderr.strip() == f"Stopped by {number.name}. Run the same command again to go on."


def test_a_job_that_waits_in_a_library_is_stopped_too():
    code = (
        "import ctypes, os, signal, threading, time\n"
        "from neurobridge_tb.cli import signals\n"
        "signals._PATIENCE_IN_LIBRARY_S = 0.2\n"
        "signals.end_with_a_sentence().__enter__()\n"
        "ready = os.pipe()\n"
        "if not (worker := os.fork()): os.write(ready[1], b'.'), time.sleep(30), os._exit(1)\n"
        "os.read(ready[0], 1)\n"
        "os.kill(worker, signal.SIGTERM)\n"  # of which this process is not told
        "assert os.waitpid(worker, 0)[1] >> 8 == 143\n"
        "threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM]).start()\n"
        "mutex = ctypes.create_string_buffer(64)\n"
        "for _ in range(2): ctypes.CDLL(None).pthread_mutex_lock(mutex)\n"  # for ever, whatever signals come
    )
    job = ran(code)
    assert (job.returncode, job.stderr.strip()) == (143, "Stopped by SIGTERM. Run the same command again to go on.")


def test_a_way_out_that_is_caught_or_waits_ends_too():
    code = (
        "import os, signal, time\n"
        "from neurobridge_tb.cli import signals\n"
        "signals._PATIENCE_S = 0.2\n"
        "with signals.end_with_a_sentence():\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except SystemExit: time.sleep(60)\n"
    )
    job = ran(code)
    assert (job.returncode, job.stderr.strip()) == (143, "Stopped by SIGTERM. Run the same command again to go on.")


def test_what_libraries_left_does_not_keep_a_stopped_job():
    code = (
        "import atexit, os, signal, time\n"
        "from neurobridge_tb.cli.signals import end_with_a_sentence\n"
        "atexit.register(print, 'told')\n"
        "Waiting = type('Waiting', (), {'__del__': lambda self, wait=time.sleep: wait(60)})\n"
        "left = Waiting()\n"
        "with end_with_a_sentence():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    job = ran(code)
    assert (job.returncode, job.stdout) == (143, "told\n")


def test_what_nohup_has_ignored_stays_ignored():
    code = (
        "import os, signal\n"
        "from neurobridge_tb.cli.signals import end_with_a_sentence\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as a child of nohup finds it
        "with end_with_a_sentence():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('goes on')\n"
    )
    assert ran(code).stdout == "goes on\n"


def pretraining(root, run, *settings):
    """The command of a short training on the CPU."""
    return [
        sys.executable, "-m", "neurobridge_tb.cli", "pretrain", "dataset=binned", f"dataset.root={root}", "device=cpu",
        f"run_dir={run}", "model=tiny", "loader.batch_size=8", *settings,
    ]  # fmt: skip


def started(command, run):
    """A training that has finished its first epoch."""
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint, deadline = run / "checkpoints" / "last.ckpt", time.monotonic() + 300
    while not checkpoint.exists() and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return job


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stopped_training_says_so_and_can_go_on(binned_root, tmp_path, number):
    command = pretraining(binned_root, tmp_path / "run", "trainer.max_epochs=3")
    job = started(command, tmp_path / "run")
    job.send_signal(number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 128 + number, errors
    assert f"Stopped by {number.name}. Run the same command again to go on." in errors
    assert not (tmp_path / "run" / "model").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]


def test_processes_that_share_a_training_end_with_its_first_one(binned_root, tmp_path):
    shared = ["trainer.max_epochs=500", "trainer.devices=2", "trainer.strategy=ddp"]
    job = started(pretraining(binned_root, tmp_path / "run", *shared), tmp_path / "run")
    others = psutil.Process(job.pid).children(recursive=True)
    assert others
    job.terminate()
    _, errors = job.communicate(timeout=120)  # the pipe is closed when all have ended
    assert job.returncode == 128 + signal.SIGTERM and "Traceback" not in errors, errors
    assert errors.count("Stopped by SIGTERM. Run the same command again to go on.") == 1
    assert not psutil.wait_procs(others, timeout=60)[1]
