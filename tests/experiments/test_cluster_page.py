"""The cluster page's Slurm script: what it asks of Slurm is what it tells the training."""

import re
import shlex
import subprocess
from pathlib import Path

from neurobridge_tb.engine.config import compose_config

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
SCRIPT = next(
    block for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "#SBATCH" in block
)


def test_the_script_is_sound_bash_with_its_directives_first():
    assert SCRIPT.startswith("#!/bin/bash\n#SBATCH")
    subprocess.run(["bash", "-n"], input=SCRIPT, text=True, check=True)
    before, _, after = SCRIPT.partition("\n\n")
    assert "#SBATCH" not in after and all(line.startswith("#") for line in before.splitlines())


def test_nodes_and_processes_agree():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", SCRIPT, re.MULTILINE))
    line = next(line for line in SCRIPT.replace("\\\n", " ").splitlines() if line.startswith("srun "))
    program, job, *settings = shlex.split(line)[1:]
    config = compose_config(job, settings)
    assert program == "neurobridge" and config.trainer.strategy == "ddp"
    assert config.trainer.num_nodes == int(asked["nodes"])
    assert config.trainer.devices == int(asked["ntasks-per-node"]) == int(asked["gpus-per-node"])
