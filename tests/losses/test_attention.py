import math

import pytest
import torch
from torch.nn import functional as F

from segdistill.losses import AttentionTransfer

FORMS = AttentionTransfer.forms


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def slow_map(features, image):
    """The attention of each position of an image, by loops: a list of length 1."""
    _, c, h, w = features.shape
    energy = [
        sum(features[image, channel, y, x].item() ** 2 for channel in range(c)) / c
        for y in range(h)
        for x in range(w)
    ]
    length = math.sqrt(sum(e * e for e in energy))
    return [e / length for e in energy]


def slow_sum(student, teacher):
    total = 0.0
    for image in range(len(student)):
        pairs = zip(slow_map(student, image), slow_map(teacher, image), strict=True)
        total += sum((ours - theirs) ** 2 for ours, theirs in pairs)
    return total


@pytest.mark.parametrize(("form", "share"), [("default", 3), ("cirkd", 3 * 4 * 5)])
def test_agrees_with_loops_at_other_widths(form, share) -> None:
    student, teacher = drawn(3, 4, 4, 5), drawn(3, 7, 4, 5, seed=1)
    value = AttentionTransfer(form=form)(student, teacher)
    torch.testing.assert_close(value.item(), slow_sum(student, teacher) / share)


def test_published_value_and_gradient_are_those_of_cosines_of_the_energies() -> None:
    # For unit vectors |a - b|² = 2 - 2 cos(a, b): another way to the same number.
    student, teacher = drawn(2, 4, 5, 6), drawn(2, 9, 5, 6, seed=1)
    results = []
    for reference in (True, False):
        features = student.clone().requires_grad_()
        if reference:
            ours, theirs = (torch.einsum("bchw,bchw->bhw", x, x) for x in (features, teacher))
            cosine = F.cosine_similarity(ours.reshape(2, 30), theirs.reshape(2, 30), dim=1)
            value = (2 - 2 * cosine).sum() / 60
        else:
            value = AttentionTransfer(form="cirkd")(features, teacher)
        value.backward()
        results.append((value.detach(), features.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("form", "expected"), [("default", 0.4), ("cirkd", 0.2)])
def test_value_worked_by_hand(form, expected) -> None:
    # Student energies: (9 + 0)/2, (0 + 12)/2 = 4.5, 6, unit map (3/5, 4/5). Teacher's: one channel,
    # 4 and 0, unit map (1, 0). (2/5)² + (4/5)² = 0.16 + 0.64 = 0.8, over two images of which the
    # other agrees: 0.4; over its two positions as well: 0.2.
    student = torch.tensor([[[[3.0, 0.0]], [[0.0, math.sqrt(12.0)]]], [[[1.0, 0.0]], [[1.0, 0.0]]]])
    teacher = torch.tensor([[[[2.0, 0.0]]], [[[5.0, 0.0]]]])
    assert AttentionTransfer(form=form)(student, teacher).item() == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMS)
def test_neither_scale_nor_sign_nor_order_of_channels_matters(form) -> None:
    student, teacher = drawn(2, 4, 5, 6), drawn(2, 4, 5, 6, seed=1)
    loss = AttentionTransfer(form=form)
    other = -3 * student.flip(1) * torch.tensor([1.0, 1e-4]).view(2, 1, 1, 1)
    torch.testing.assert_close(loss(other, teacher), loss(student, teacher))


def test_the_default_depends_on_neither_resolution_nor_channels_and_cirkd_on_resolution() -> None:
    student, teacher = drawn(2, 4, 5, 6), drawn(2, 4, 5, 6, seed=1)
    finer = [x.repeat_interleave(2, 2).repeat_interleave(3, 3) for x in (student, teacher)]
    wider = [x.repeat(1, 3, 1, 1) for x in (student, teacher)]
    ours, published = AttentionTransfer(), AttentionTransfer(form="cirkd")
    torch.testing.assert_close(ours(*finer), ours(student, teacher))
    torch.testing.assert_close(ours(*wider), ours(student, teacher))
    torch.testing.assert_close(published(*finer), published(student, teacher) / 6)
    torch.testing.assert_close(ours(student, teacher), 30 * published(student, teacher))


@pytest.mark.parametrize("form", FORMS)
def test_zero_features_have_a_finite_gradient_in_half(form) -> None:
    student = torch.zeros(1, 3, 4, 4, dtype=torch.float16, requires_grad=True)
    value = AttentionTransfer(form=form)(student, drawn(1, 3, 4, 4).half())
    value.backward()
    assert torch.isfinite(value)
    assert (student.grad == 0).all()
