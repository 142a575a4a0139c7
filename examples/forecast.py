"""Forecasting as a Hydra script: the same job as `neurobridge forecast`, with Hydra's sweeps and launchers.

python examples/forecast.py dataset=binned dataset.root=processed forecaster=laptop model.bin_size=0.05
python examples/forecast.py --multirun dataset.root=processed seed=0,1,2 run_dir='runs/seed${seed}'
"""

import hydra
from omegaconf import DictConfig

from neurobridge_tb.jobs.forecast import forecast  # puts the job's config into Hydra's store


@hydra.main(version_base="1.3", config_path=None, config_name="forecast")
def main(config: DictConfig) -> None:
    print(f"Results lie in {forecast(config)}")


if __name__ == "__main__":
    main()
