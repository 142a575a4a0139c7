import torch

from neurobridge_tb.engine.run_log.weighted_mean import WeightedMean


def test_it_weighs_and_starts_anew():
    metric = WeightedMean()
    for _ in range(2):
        metric.update(torch.tensor(1.0), weight=3)
        metric.update(torch.tensor(2.0), weight=torch.tensor(1.0))
        torch.testing.assert_close(metric.compute(), torch.tensor(1.25))
        metric.reset()
