"""The two- and three-branch networks and STDC: blocks written out plainly, auxiliary heads."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.models import build_model
from segdistill.models.layers.aggregation import AggregationPyramid
from segdistill.models.layers.residual import basic_layer, widening
from segdistill.models.networks.pidnet import AttentionGuidedFusion, BoundaryGuidedFusion
from segdistill.models.networks.stdc import DenseConcatenation
from segdistill.run.evaluation.profile import profile

SMALL = {
    "ddrnet23_slim": {"width": 8, "head_width": 16},
    "stdc1": {"width": 16, "layers": [1, 1, 1]},
    "pidnet_s": {"width": 8},
}


@pytest.mark.parametrize(("name", "gmacs"), [("ddrnet23_slim", 36.292), ("pidnet_s", 47.205)])
def test_counts_as_deployed_at_the_size_of_the_papers(name, gmacs):
    with torch.device("meta"):
        model = build_model(name, 19, aux=False)
    counted = profile(model, (1024, 2048), count="paper", latency=False)
    assert round(counted.multiply_adds / 1e9, 3) == gmacs


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_takes_part_in_training(name):
    torch.manual_seed(0)
    model = build_model(name, 2, **SMALL[name]).train()
    distiller = Distiller(model, build_method("supervised", 2))
    images, labels = torch.rand(4, 3, 65, 65), torch.zeros(4, 65, 65, dtype=torch.long)
    distiller.dry_pass(images)
    values = distiller(images, labels)
    distiller.method.total(values).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    coarse = {"cross_entropy_aux_coarse"} if name == "stdc1" else set()
    assert set(values) == {"cross_entropy", "cross_entropy_aux"} | coarse


def test_only_the_last_sum_of_a_layer_is_linear():
    torch.manual_seed(0)
    layer = basic_layer(4, 6, blocks=3, stride=2).eval()
    x = torch.randn(2, 4, 8, 8)
    first, second, _ = layer
    assert first(x).min() == 0 and second(first(x)).min() == 0
    assert layer(x).min() < 0 and widening(4, 3).eval()(x).min() < 0
    (only,) = basic_layer(4, 6, blocks=1)
    assert only.eval()(x).min() < 0
    torch.testing.assert_close(first(x), (first.body(x) + first.shortcut(x)).relu())


def _plain(module: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Batch norm, ReLU, convolution from their own numbers."""
    norm, _, conv = module
    shape = (1, -1, 1, 1)
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    x = x * norm.weight.view(shape) + norm.bias.view(shape)
    return F.conv2d(x.clamp(min=0), conv.weight, padding=conv.padding, groups=conv.groups)


@pytest.mark.parametrize("parallel", [False, True])
def test_the_pyramid_against_its_definition(parallel):
    torch.manual_seed(0)
    pyramid = AggregationPyramid(6, 4, 5, parallel).eval()
    x = torch.randn(2, 6, 9, 12)
    own = _plain(pyramid.own, x)
    found = [own]
    for number, (kernel, stride) in enumerate([(5, 2), (9, 4), (17, 8), (0, 0)]):
        pad = kernel // 2
        mean = F.avg_pool2d(F.pad(x, (pad,) * 4), kernel, stride) if kernel else x.mean((2, 3))
        mean = mean.view(2, 6, 1, 1) if not kernel else mean
        mean = F.interpolate(_plain(pyramid.scales[number][1], mean), (9, 12), mode="bilinear")
        if parallel:
            found.append(mean + own)
        else:
            found.append(_plain(pyramid.process[number], mean + found[-1]))
    if parallel:
        found = [own, _plain(pyramid.process, torch.cat(found[1:], 1))]
    expected = _plain(pyramid.join, torch.cat(found, 1)) + _plain(pyramid.shortcut, x)
    torch.testing.assert_close(pyramid(x), expected)


def test_guided_fusions_weigh_pixel_by_pixel():
    torch.manual_seed(0)
    pag, bag = AttentionGuidedFusion(8, 4).eval(), BoundaryGuidedFusion(4).eval()
    fine, coarse = torch.randn(1, 4, 6, 6), torch.randn(1, 8, 3, 3)
    context = F.interpolate(pag.compress(coarse), (6, 6), mode="bilinear")
    keys = F.interpolate(pag.embed_coarse(pag.compress(coarse)), (6, 6), mode="bilinear")
    share = (pag.embed_fine(fine) * keys).sum(1, keepdim=True).sigmoid()
    torch.testing.assert_close(pag(fine, coarse), share * context + (1 - share) * fine)
    # At a sure boundary the detail stands for both, far from one the context.
    sure = torch.full_like(fine, 40.0)
    torch.testing.assert_close(
        bag(fine, context, sure), bag.detail(fine) + bag.inside(context + fine)
    )
    torch.testing.assert_close(
        bag(fine, context, -sure), bag.detail(fine + context) + bag.inside(context)
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_dense_concatenation_is_a_half_a_quarter_and_two_eighths(stride):
    torch.manual_seed(0)
    block = DenseConcatenation(8, 16, stride).eval()
    x = torch.randn(1, 8, 9, 12)
    out = block(x)
    assert out.shape == (1, 16, -(-9 // stride), 12 // stride)
    first = block.first(x)
    expected = first if stride == 1 else F.avg_pool2d(first, 3, 2, 1)
    torch.testing.assert_close(out[:, :8], expected)
    assert [conv[0].out_channels for conv in block.rest] == [4, 2, 2]
