"""ENet's unpooling against torch's, ERFNet's second classifier, padding."""

import pytest
import torch
import torch.nn.functional as F

from segdistill.models import build_model
from segdistill.models.layers.padding import pad_to_multiple
from segdistill.models.networks.enet import pool_places, unpool


def test_unpooling_equals_torchs_in_value_and_gradient():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 8, requires_grad=True)
    y = torch.randn(2, 3, 3, 4, requires_grad=True)
    values, places = pool_places(x)
    expected, indices = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(values, expected)
    ours, theirs = unpool(y, places), F.max_unpool2d(y, indices, 2)
    assert torch.equal(ours, theirs)
    weight = torch.randn_like(ours)
    for tensor, one, other in ((y, ours, theirs), (x, values.sum(), expected.sum())):
        scale = weight if one.ndim else 1.0
        (a,) = torch.autograd.grad((one * scale).sum(), tensor)
        (b,) = torch.autograd.grad((other * scale).sum(), tensor)
        assert torch.equal(a, b)


def test_where_values_are_equal_but_for_rounding_the_first_counts():
    x = torch.full((1, 1, 4, 4), 0.3)
    x[..., 1, 1] += 1e-7
    x[..., 2, 3] += 1e-3
    values, places = pool_places(x)
    assert places.flatten().tolist() == [0, 0, 0, 1]
    assert values.flatten().tolist() == pytest.approx([0.3 + 1e-7, 0.3, 0.3, 0.301])


def test_erfnets_encoder_has_a_classifier_that_runs_when_it_is_read():
    torch.manual_seed(0)
    model = build_model("erfnet", 3).train()
    x = torch.rand(2, 3, 64, 64)
    model(x).sum().backward()
    assert model.encoder_classifier[0].weight.grad is None
    seen = []
    model.get_submodule(model.taps["logits_encoder"]).register_forward_hook(
        lambda _, __, out: seen.append(out)
    )
    model(x)
    assert seen[0].shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("size", "to"), [((8, 16), (8, 16)), ((9, 15), (16, 16)), ((1, 8), (8, 8))]
)
def test_padding_repeats_the_edge_below_and_right(size, to):
    x = torch.rand(1, 3, *size)
    out = pad_to_multiple(x, 8)
    assert out.shape[-2:] == to
    assert torch.equal(out[..., : size[0], : size[1]], x)
    assert torch.equal(out[..., -1, -1], x[..., -1, -1])
