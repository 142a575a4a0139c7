"""Embeddings of several layers: the dot product is the weighted sum of the layers' cosines."""

import torch

from neurobridge_tb.nn.layer_maps import LayerMaps, weighted_parts


def test_a_map_never_mixes_layers():
    maps = LayerMaps([2, 3], gain=1.0)
    x = torch.randn(4, 5)
    torch.testing.assert_close(maps(x), x)
    with torch.no_grad():
        maps.maps[1].fill_(2.0)
    torch.testing.assert_close(maps(x)[:, :2], x[:, :2])
    torch.testing.assert_close(maps(x)[:, 2:], 2 * x[:, 2:].sum(1, keepdim=True).expand(-1, 3))


def test_the_dot_product_is_the_weighted_sum_of_cosines():
    a, b, weights = torch.randn(6, 5), torch.randn(6, 5), torch.tensor([0.3, 0.7])
    together = (weighted_parts(a, [2, 3], weights) * weighted_parts(b, [2, 3], weights)).sum(1)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(together, 0.3 * cosine(a[:, :2], b[:, :2]) + 0.7 * cosine(a[:, 2:], b[:, 2:]))
    torch.testing.assert_close(weighted_parts(a, [2, 3], weights).norm(dim=1), torch.ones(6))
