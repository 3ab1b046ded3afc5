"""Pooling by matrices against torch's own: value, gradient, and exported with free sizes."""

import pytest
import torch
import torch.nn.functional as F

from segdistill.models.layers.pooling import adaptive_avg_pool, max_pool_up, pooling_cells
from segdistill.models.layers.resnet import BasicBlock, DeepStemResNet
from segdistill.models.networks.pspnet import PSPNet


@pytest.mark.parametrize("bins", [1, 2, 3, 6, 7])
def test_equals_adaptive_average_pooling_at_every_size(bins):
    torch.manual_seed(bins)
    for h in (1, 2, 3, 5, 6, 7, 12, 13, 33, 65):
        for w in (1, 4, 6, 11, 30, 129):
            x = torch.randn(1, 2, h, w, dtype=torch.float64)
            torch.testing.assert_close(
                adaptive_avg_pool(x, bins), F.adaptive_avg_pool2d(x, bins), msg=f"{h}×{w}"
            )


def test_gradient_equals_that_of_adaptive_average_pooling():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 13, 17, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    (ours,) = torch.autograd.grad((adaptive_avg_pool(x, 6) * weight).sum(), x)
    (reference,) = torch.autograd.grad((F.adaptive_avg_pool2d(x, 6) * weight).sum(), x)
    torch.testing.assert_close(ours, reference)


def test_cells_worked_by_hand():
    # 5 positions in 3 cells: [0, 2), [1, 4), [3, 5); neighbours overlap.
    inside, lengths = pooling_cells(5, 3)
    assert inside.int().tolist() == [[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert lengths.tolist() == [2, 3, 2]


def test_a_constant_stays_exact_in_half_precision():
    # Averaging weights such as 1/65 would not be exact in bfloat16; sums of ones are.
    x = torch.full((1, 4, 65, 129), 3.0, dtype=torch.bfloat16)
    assert (adaptive_avg_pool(x, 3) == 3.0).all()


def test_rounded_up_max_pool_equals_ceil_mode():
    torch.manual_seed(0)
    for h in range(1, 10):
        for w in (1, 2, 8, 11, 64, 65):
            x = torch.randn(1, 2, h, w, requires_grad=True)
            reference = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
            assert torch.equal(max_pool_up(x), reference)
            assert reference.shape[-2:] == (h // 2 + 1, w // 2 + 1)
            (ours,) = torch.autograd.grad(max_pool_up(x).sum(), x)
            (theirs,) = torch.autograd.grad(reference.sum(), x)
            assert torch.equal(ours, theirs)


def test_a_whole_network_exports_with_free_sizes():
    torch.manual_seed(0)
    model = PSPNet(DeepStemResNet(BasicBlock, (1, 1, 1, 1), width=4), 3).eval()
    free = {
        0: torch.export.Dim("b", max=16),
        2: torch.export.Dim("h", min=32, max=1024),
        3: torch.export.Dim("w", min=32, max=1024),
    }
    exported = torch.export.export(
        model, (torch.rand(2, 3, 64, 96),), dynamic_shapes={"images": free}
    ).module()
    with torch.no_grad():
        for size in ((2, 3, 64, 96), (1, 3, 65, 97), (3, 3, 130, 50)):
            x = torch.rand(size)
            torch.testing.assert_close(exported(x), model(x))
