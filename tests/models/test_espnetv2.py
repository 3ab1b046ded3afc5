"""ESPNetv2: its pyramid against torch's own pooling, its widths."""

import math

import pytest
import torch
import torch.nn.functional as F

from segdistill.models import build_model
from segdistill.models.layers.pooling import adaptive_avg_pool, adaptive_avg_pool_near
from segdistill.models.networks.espnetv2 import DepthwisePyramid, ScalePyramid
from segdistill.run.evaluation.profile import profile


@pytest.mark.parametrize("size", [(8, 12), (9, 11), (5, 7), (32, 21)])
def test_the_pyramid_is_the_released_one(size):
    torch.manual_seed(0)
    module = ScalePyramid(6, 4, 7).eval()
    x = torch.randn(2, 6, *size)

    def resize(t, to):
        return F.interpolate(t, to, mode="bilinear", align_corners=True)

    with torch.no_grad():
        reduced, maps = module.reduce(x), []
        for scale, stage in zip((2.0, 1.5, 1.0, 0.5, 0.1), module.stages, strict=True):
            to = [max(5, math.ceil(side * scale)) for side in size]
            if scale > 1:
                maps.append(F.adaptive_avg_pool2d(stage(resize(reduced, to)), size))
            elif scale < 1:
                maps.append(resize(stage(F.adaptive_avg_pool2d(reduced, to)), size))
            else:
                maps.append(stage(reduced))
        joined = module.norm(torch.cat(maps, 1))
        # Channel 0 of each scale, then channel 1 of each, ...
        order = [scale * 4 + channel for channel in range(4) for scale in range(5)]
        expected = module.expand(module.merge(joined[:, order]))
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("size", "to"), [((12, 9), (8, 6)), ((14, 11), (9, 7)), ((9, 8), (5, 8))])
def test_pooling_to_nearly_the_same_grid_equals_torchs(size, to):
    torch.manual_seed(0)
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    reference = F.adaptive_avg_pool2d(x, to)
    torch.testing.assert_close(adaptive_avg_pool_near(x, to, widest=3), reference)
    torch.testing.assert_close(adaptive_avg_pool(x, to), reference)
    weight = torch.randn_like(reference)
    (ours,) = torch.autograd.grad((adaptive_avg_pool_near(x, to, 3) * weight).sum(), x)
    (theirs,) = torch.autograd.grad((reference * weight).sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_branches_are_summed_one_after_the_other():
    torch.manual_seed(0)
    unit = DepthwisePyramid(16, 16, (1, 1, 2, 3)).eval()
    x = torch.randn(1, 16, 9, 9)
    with torch.no_grad():
        maps = [branch(unit.reduce(x)) for branch in unit.branches]
        sums = [maps[0], maps[0] + maps[1], sum(maps[:3]), sum(maps)]
        expected = unit.act(unit.expand(unit.norm(torch.cat(sums, 1))) + x)
        torch.testing.assert_close(unit(x), expected)


# The authors' file of the same width, less three activations that are built and never called.
@pytest.mark.parametrize(
    ("width", "released"), [(0.5, 80_342), (1.0, 234_010), (1.5, 468_362), (2.0, 789_242)]
)
def test_parameters_are_those_of_the_released_files(width, released):
    with torch.device("meta"):
        model = build_model("espnetv2", 19, width=width, extra_outputs=1)
    unused = sum(
        part.context.expand[1].num_features for part in (model.down2, model.down3, model.down4)
    )
    assert sum(p.numel() for p in model.parameters()) == released - unused


@pytest.mark.parametrize(
    ("width", "parameters", "giga"),
    [(0.5, 79_340, 0.566), (1.0, 232_768, 1.055), (1.5, 466_864, 1.682), (2.0, 787_488, 2.667)],
)
def test_counts_at_19_classes(width, parameters, giga):
    with torch.device("meta"):
        model = build_model("espnetv2", 19, width=width)
    found = profile(model, (512, 1024), count="paper", latency=False)
    assert (found.parameters, round(found.multiply_adds / 1e9, 3)) == (parameters, giga)


def test_a_width_that_there_is_not():
    with pytest.raises(ValueError, match=r"no width of espnetv2 named '0\.75'"):
        build_model("espnetv2", 3, width=0.75)
