"""A job that is stopped says so and ends with a code of its own; run again, it goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_of_terminals_and_clusters_have_a_sentence_of_the_job_alone(number):
    code = (
        "import os, signal\n"
        "from neurobridge_tb.cli.signals import end_with_a_sentence\n"
        "end_with_a_sentence()\n"
        "worker = os.fork()\n"
        "if worker: os.waitpid(worker, 0)\n"
        f"os.kill(os.getpid(), {number.value})\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}
    job = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert job.returncode == 128 + number
    assert job.stderr.strip() == f"Stopped by {number.name}. Run the same command again to go on."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stopped_training_says_so_and_can_go_on(binned_root, tmp_path, number):
    command = [
        sys.executable, "-m", "neurobridge_tb.cli", "pretrain", "dataset=binned", f"dataset.root={binned_root}",
        f"run_dir={tmp_path}/run", "model=tiny", "trainer.max_epochs=3", "loader.batch_size=8",
    ]  # fmt: skip
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 128 + number, errors
    assert f"Stopped by {number.name}. Run the same command again to go on." in errors
    assert not (tmp_path / "run" / "model").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
