"""Attention to a context, against loops written from the equations."""

import torch
from torch import nn

from segdistill.models.layers.attention import ContextAttention, object_regions, pyramid_samples


def test_attention_equals_a_loop_over_positions():
    torch.manual_seed(0)
    query, key, value = nn.Conv2d(4, 3, 1), nn.Conv2d(5, 3, 1), nn.Conv2d(5, 6, 1)
    block = ContextAttention(query, key, value, nn.Conv2d(6, 4, 1))
    x, context = torch.randn(2, 4, 3, 2), torch.randn(2, 5, 2, 4)
    found = block(x, context)
    assert found.shape == (2, 4, 3, 2)
    q, k, v = query(x), key(context).flatten(2), value(context).flatten(2)
    for b in range(2):
        for row in range(3):
            for column in range(2):
                alike = torch.stack([q[b, :, row, column] @ k[b, :, n] for n in range(8)])
                share = (alike / 3**0.5).softmax(0)
                mean = sum(share[n] * v[b, :, n] for n in range(8))
                expected = block.out(mean[None, :, None, None])[0, :, 0, 0]
                torch.testing.assert_close(found[b, :, row, column], expected)


def test_without_a_query_the_key_asks_and_has_its_weights_once():
    torch.manual_seed(0)
    key = nn.Conv2d(4, 3, 1)
    value, out = nn.Conv2d(4, 4, 1), nn.Identity()
    shared = ContextAttention(None, key, value, out)
    x = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(shared(x, x), ContextAttention(key, key, value, out)(x, x))
    assert [name for name in shared.state_dict() if "query" in name] == []


def test_samples_are_the_means_of_four_grids():
    x = torch.randn(2, 3, 9, 13)
    samples = pyramid_samples(x)
    assert samples.shape == (2, 3, 110)
    torch.testing.assert_close(samples[..., 0], x.mean((2, 3)))
    grid = nn.functional.adaptive_avg_pool2d(x, 8)
    torch.testing.assert_close(samples[..., 46:], grid.flatten(2))


def test_a_region_is_the_mean_of_the_positions_that_have_its_class():
    features = torch.randn(1, 3, 2, 2)
    # Certain logits: class 0 holds the two upper positions, class 1 the lower right one alone.
    certain = torch.full((1, 2, 2, 2), -100.0)
    certain[0, 0, 0] = 100.0
    certain[0, 1, 1, 1] = 100.0
    regions = object_regions(features, certain)
    assert regions.shape == (1, 3, 2, 1)
    torch.testing.assert_close(regions[0, :, 0, 0], features[0, :, 0].mean(-1))
    torch.testing.assert_close(regions[0, :, 1, 0], features[0, :, 1, 1])
