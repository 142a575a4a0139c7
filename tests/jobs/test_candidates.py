"""Of several pictures the one is kept whose embedding is nearest to the predicted one."""

import torch

from neurobridge_tb.jobs.reconstruct import choose


def test_the_nearest_candidate_of_each_sample_is_kept():
    torch.manual_seed(0)
    drawn = torch.randint(0, 256, (3, 2 * 4, 3, 2, 2), dtype=torch.uint8)  # 3 items, 2 samples of 4 candidates

    def compare(pictures):
        return torch.nn.functional.normalize(pictures.float().mean((2, 3)) - 128, dim=-1)

    wanted = torch.nn.functional.normalize(torch.randn(3, 3), dim=-1)
    kept = choose(drawn, wanted, compare, 4)
    assert kept.shape == (3, 2, 3, 2, 2)
    for i in range(3):
        for s in range(2):
            candidates = drawn[i, 4 * s : 4 * s + 4]
            likeness = compare(candidates) @ wanted[i]
            assert torch.equal(kept[i, s], candidates[likeness.argmax()])
