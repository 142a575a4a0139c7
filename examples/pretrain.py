"""Masked pretraining as a Hydra script: the same job as `neurobridge pretrain`, with Hydra's sweeps and launchers.

python examples/pretrain.py dataset=binned dataset.root=processed model=laptop
python examples/pretrain.py --multirun dataset=binned dataset.root=processed seed=0,1,2 run_dir='runs/seed${seed}'
"""

import hydra
from omegaconf import DictConfig

from neurobridge_tb.jobs.pretrain import pretrain  # puts the job's config into Hydra's store


@hydra.main(version_base="1.3", config_path=None, config_name="pretrain")
def main(config: DictConfig) -> None:
    print(f"Results lie in {pretrain(config)}")


if __name__ == "__main__":
    main()
