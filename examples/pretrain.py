"""Masked pretraining as a Hydra script: the same job as `neurobridge pretrain`, with Hydra's sweeps and launchers.

python examples/pretrain.py dataset=binned dataset.root=processed model=laptop
python examples/pretrain.py --multirun dataset=binned dataset.root=processed seed=0,1,2 run_dir='runs/seed${seed}'
"""

import sys

import hydra
from omegaconf import DictConfig, open_dict

from neurobridge_tb.jobs.pretrain import pretrain


@hydra.main(version_base="1.3", config_path="pkg://neurobridge_tb.configs", config_name="pretrain")
def main(config: DictConfig) -> None:
    with open_dict(config):
        config.command = " ".join(["python", *sys.argv])
    print(f"Results lie in {pretrain(config)}")


if __name__ == "__main__":
    main()
