import math

import pytest
import torch

from segdistill.losses import ChannelwiseKD


def slow_sum(student, teacher, temperature):
    """Sum over images and channels of KL(teacher ‖ student) over positions, by loops."""
    total = 0.0
    for b in range(student.shape[0]):
        for c in range(student.shape[1]):
            p, q = (
                [math.exp(v / temperature) for v in x[b, c].flatten().tolist()]
                for x in (teacher, student)
            )
            for a, d in zip(p, q, strict=True):
                a, d = a / sum(p), d / sum(q)
                total += a * math.log(a / d)
    return total


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, 2, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_published_form_agrees_with_loops(pair, temperature) -> None:
    expected = slow_sum(*pair, temperature) * temperature**2 / (3 * 5)
    value = ChannelwiseKD(temperature, form="torchdistiller")(*pair)
    torch.testing.assert_close(value.item(), expected)


def test_default_divides_by_images_and_nineteen(pair) -> None:
    expected = slow_sum(*pair, 4.0) * 16 / (3 * 19)
    torch.testing.assert_close(ChannelwiseKD()(*pair).item(), expected)


def test_torchdistiller_equals_mmrazor_and_at_nineteen_channels_ours(pair) -> None:
    published = [ChannelwiseKD(form=form)(*pair) for form in ("torchdistiller", "mmrazor")]
    assert torch.equal(*published)
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(2, 19, 3, 3, generator=generator) for _ in range(2))
    ours = ChannelwiseKD()(student, teacher)
    torch.testing.assert_close(ours, ChannelwiseKD(form="mmrazor")(student, teacher))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_published_gradient_is_that_of_the_softmax_over_positions(pair, temperature) -> None:
    # Of the divergence, and of the cross-entropy that leaves the teacher's entropy out, alike:
    # T² (q - p) / T over 3 images and 5 channels.
    student = pair[0].clone().requires_grad_()
    ChannelwiseKD(temperature, form="mmrazor")(student, pair[1]).backward()
    q, p = (torch.exp(x / temperature) for x in pair)
    difference = q / q.sum((2, 3), keepdim=True) - p / p.sum((2, 3), keepdim=True)
    torch.testing.assert_close(student.grad, temperature / 15 * difference)


def test_value_worked_by_hand() -> None:
    # One channel of two positions: teacher (3/4, 1/4), student (1/2, 1/2).
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812; our form divides by 19: 0.0068848.
    teacher = torch.tensor([[[[math.log(3.0), 0.0]]]])
    student = torch.zeros(1, 1, 1, 2)
    published = ChannelwiseKD(1.0, form="mmrazor")(student, teacher).item()
    assert published == pytest.approx(0.130812, abs=1e-6)
    assert ChannelwiseKD(1.0)(student, teacher).item() == pytest.approx(0.0068848, abs=1e-7)


def gradient(form, channels):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, channels, 6, 6, generator=generator) for _ in range(2))
    student.requires_grad_()
    ChannelwiseKD(form=form)(student, teacher).backward()
    return student.grad.abs().mean().item()


def test_the_gradient_does_not_fall_with_the_number_of_channels_in_our_form() -> None:
    # On equal statistics: the same per element in ours, in proportion to 1/C as published.
    assert gradient("default", 150) / gradient("default", 11) == pytest.approx(1, rel=0.1)
    ratio = gradient("torchdistiller", 150) / gradient("torchdistiller", 11)
    assert ratio == pytest.approx(11 / 150, rel=0.1)


def test_a_constant_added_to_a_channel_changes_nothing(pair) -> None:
    shifted = pair[0] + torch.arange(5.0).view(1, 5, 1, 1)
    torch.testing.assert_close(ChannelwiseKD()(shifted, pair[1]), ChannelwiseKD()(*pair))


def test_peaked_maps_stay_finite() -> None:
    student = torch.tensor([[[[0.0, 2000.0]]]], requires_grad=True)
    value = ChannelwiseKD(1.0, form="torchdistiller")(student, torch.tensor([[[[3000.0, 0.0]]]]))
    value.backward()
    assert value.item() == pytest.approx(2000.0)
    assert torch.isfinite(student.grad).all()


def test_cirkd_divides_by_the_students_own_channels_after_projecting(pair) -> None:
    student, teacher = pair[0][:, :2], pair[1]
    loss = ChannelwiseKD(form="cirkd")
    loss.build(student.shape, teacher.shape)
    loss.double()
    assert loss.projection.bias is None
    projected = torch.einsum("dc,bchw->bdhw", loss.projection.weight[:, :, 0, 0], student)
    expected = slow_sum(projected, teacher, 4.0) * 16 / (3 * 2)
    torch.testing.assert_close(loss(student, teacher).item(), expected)


def test_torchdistiller_projects_normalises_and_rectifies(pair) -> None:
    student, teacher = pair[0][:, :2], pair[1]
    loss = ChannelwiseKD(form="torchdistiller")
    loss.build(student.shape, teacher.shape)
    loss.double()
    weight = loss.projection[0].weight[:, :, 0, 0]
    projected = torch.einsum("dc,bchw->bdhw", weight, student)
    mean = projected.mean((0, 2, 3), keepdim=True)
    spread = (projected - mean).square().mean((0, 2, 3), keepdim=True)
    seen = ((projected - mean) / (spread + 1e-5).sqrt()).clamp(min=0)
    expected = slow_sum(seen, teacher, 4.0) * 16 / (3 * 5)
    torch.testing.assert_close(loss(student, teacher).item(), expected)


def test_equal_widths_and_other_forms_own_no_projection(pair) -> None:
    for form in ("torchdistiller", "cirkd", "mmrazor", "default"):
        loss = ChannelwiseKD(form=form)
        loss.build(pair[0].shape, pair[1].shape)
        assert not list(loss.parameters())
