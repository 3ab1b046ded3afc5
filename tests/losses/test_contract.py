"""What any loss must do, over the table of losses and their published forms."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segdistill.losses import IGNORED, LOSSES, Loss

CASES = [
    ("cross_entropy", {}),
    ("cross_entropy", {"ohem": True, "min_kept": 0}),
    ("pixelwise", {}),
    ("pixelwise", {"temperature": 4.0}),
    ("pixelwise", {"form": "skd"}),
    ("pixelwise", {"form": "ifvd"}),
    ("pixelwise", {"form": "cirkd"}),
    ("pairwise", {}),
    ("pairwise", {"form": "skd"}),
    ("pairwise", {"form": "cirkd"}),
    ("channelwise", {}),
    ("channelwise", {"form": "torchdistiller"}),
    ("channelwise", {"form": "mmrazor"}),
    ("channelwise", {"form": "cirkd"}),
    ("intra_class", {}),
    ("intra_class", {"form": "ifvd"}),
    ("intra_class", {"form": "cirkd"}),
    ("inter_class", {}),
    ("inter_class", {"form": "paper"}),
    ("inter_class", {"ordered": True, "min_pixels": 1}),
    ("position", {}),
    ("position", {"form": "paper"}),
    ("position", {"align": "logits"}),
    ("position", {"target": "ramp"}),
    ("attention", {}),
    ("attention", {"form": "cirkd"}),
    ("dist", {}),
    ("dist", {"temperature": 4.0}),
    ("dist", {"form": "dist"}),
    ("image_relation", {}),
    ("image_relation", {"form": "cirkd"}),
    ("image_relation", {"nodes": 3, "temperature": 1.0}),
]
# Cases that are least, with no gradient, where the student equals the teacher. The fitted map of
# `position` is not the identity there (it is regularised), and a free one starts anywhere; the 1e-8
# in DIST's released denominator leaves a gradient of that size.
DISTILLING = [
    case
    for case in CASES
    if case[0] != "cross_entropy"
    and (case[0] != "position" or case[1] == {"align": "logits"})
    and case != ("dist", {"form": "dist"})
]
GRIDS = ["pixelwise", "channelwise", "pairwise", "attention", "dist", "image_relation"]
# The critic of `holistic` reads maps of 16x16 or more; its contract is in test_holistic.py.
LARGE = {"holistic"}
DEFAULTS = [(name, {}) for name in LOSSES if name not in {"position", *LARGE}]
# SKD holds the norm constant on purpose: its gradient is not that of the value.
DIFFERENTIABLE = [case for case in CASES if case != ("pairwise", {"form": "skd"})]


def ready(name: str, options: dict, channels: int, dtype: torch.dtype = torch.float32) -> Loss:
    """A loss that has been built and, where it prepares, prepared, for equal channels."""
    loss = LOSSES[name](**options)
    if name == "position":
        loss.steps = 2
        shape = torch.Size([2, channels, 6, 7])
        loss.build(shape, shape)
        generator = torch.Generator().manual_seed(3)
        pair = [torch.randn(shape, generator=generator) for _ in range(2)]
        loss.prepare([(pair[0], pair[1])])
        loss.axes.fill_(1)
    return loss.to(dtype).eval()


def called(loss: Loss, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The loss of as many of the three as its signature names."""
    given = {"student": student, "teacher": teacher, "labels": labels}
    return loss(*(given[name] for name in inspect.signature(loss.forward).parameters))


def inputs(
    b: int, c: int, h: int, w: int, stride: int = 2, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(b + 10 * c + 100 * h + 1000 * w)
    student = torch.randn(b, c, h, w, generator=generator, dtype=torch.float64).to(dtype)
    teacher = torch.randn(b, c, h, w, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, c, (b, h * stride, w * stride), generator=generator)
    labels[:, 0] = IGNORED
    return student.requires_grad_(), teacher, labels


def test_every_loss_is_in_the_cases() -> None:
    assert {name for name, _ in CASES} | LARGE == set(LOSSES)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 2, 5, 4), (3, 19, 7, 9), (2, 150, 5, 5), (1, 7, 1, 9)]
)
def test_value_and_gradient_are_finite_at_any_size(name, options, shape) -> None:
    student, teacher, labels = inputs(*shape)
    value = called(ready(name, options, shape[1]), student, teacher, labels)
    value.backward()
    assert value.shape == ()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(("name", "options"), CASES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    b=st.integers(1, 3),
    c=st.integers(1, 6),
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    stride=st.integers(1, 3),
)
def test_value_is_finite_on_drawn_shapes(name, options, b, c, h, w, stride) -> None:
    student, teacher, labels = inputs(b, c, h, w, stride)
    value = called(ready(name, options, c), student, teacher, labels)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_raised_to_float32(name, options, dtype) -> None:
    student, teacher, labels = inputs(2, 5, 6, 7, dtype=dtype)
    loss = ready(name, options, 5)
    with torch.autocast("cpu", torch.bfloat16):
        value = called(loss, student, teacher, labels)
    value.backward()
    reference = called(loss, student.detach().float(), teacher.float(), labels)
    assert value.dtype == torch.float32
    assert student.grad.dtype == dtype
    assert torch.isfinite(student.grad).all()
    torch.testing.assert_close(value, reference)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_float64_stays(name, options) -> None:
    student, teacher, labels = inputs(2, 5, 6, 7, dtype=torch.float64)
    value = called(ready(name, options, 5, torch.float64), student, teacher, labels)
    assert value.dtype == torch.float64


@pytest.mark.parametrize(("name", "options"), CASES)
def test_all_pixels_ignored_is_a_finite_zero_where_labels_are_read(name, options) -> None:
    student, teacher, labels = inputs(2, 5, 6, 7)
    loss = ready(name, options, 5)
    value = called(loss, student, teacher, torch.full_like(labels, IGNORED))
    value.backward()
    assert torch.isfinite(student.grad).all()
    if "labels" in inspect.signature(loss.forward).parameters:
        assert value.item() == 0
        assert (student.grad == 0).all()
    else:
        assert value.item() > 0


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradient_reaches_the_student_and_never_the_teacher(name, options) -> None:
    student, teacher, labels = inputs(2, 5, 6, 7)
    teacher.requires_grad_()
    called(ready(name, options, 5), student, teacher, labels).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize(("name", "options"), DISTILLING)
def test_least_where_the_student_equals_the_teacher(name, options) -> None:
    student, teacher, labels = inputs(2, 5, 6, 7, dtype=torch.float64)
    loss = ready(name, options, 5, torch.float64)
    same = teacher.clone().requires_grad_()
    least = called(loss, same, teacher, labels)
    least.backward()
    assert same.grad.abs().max() < 1e-9
    assert least < called(loss, student, teacher, labels)
    if options.get("form") != "skd" or name != "pixelwise":
        # SKD's pixel loss ends at the teacher's entropy, all others at zero.
        assert abs(least.item()) < 1e-12


@pytest.mark.parametrize(("name", "options"), DIFFERENTIABLE)
def test_gradient_is_that_of_the_value(name, options) -> None:
    student, teacher, labels = inputs(2, 3, 4, 5, dtype=torch.float64)
    loss = ready(name, options, 3, torch.float64)
    assert torch.autograd.gradcheck(
        lambda features: called(loss, features, teacher, labels), (student,), fast_mode=True
    )


@pytest.mark.parametrize(("name", "options"), DEFAULTS)
def test_defaults_do_not_depend_on_the_size_of_the_batch(name, options) -> None:
    student, teacher, labels = (tensor.detach() for tensor in inputs(2, 5, 8, 8))
    loss = ready(name, options, 5)
    twice = [torch.cat([tensor, tensor]) for tensor in (student, teacher, labels)]
    torch.testing.assert_close(
        called(loss, *twice), called(loss, student, teacher, labels), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_same_call_gives_the_same_bits(name, options) -> None:
    student, teacher, labels = inputs(2, 5, 6, 7)
    loss = ready(name, options, 5)
    first, second = (called(loss, student, teacher, labels) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "cross_entropy"])
def test_an_unknown_form_lists_the_known_ones(name) -> None:
    with pytest.raises(ValueError, match=rf"{name} has no form 'ours'; choose one of: default, "):
        LOSSES[name](form="ours")


@pytest.mark.parametrize("name", ["pixelwise", "channelwise", "dist"])
def test_different_channels_are_refused_with_the_remedy(name) -> None:
    with pytest.raises(ValueError, match="student has 3 and the teacher 4; project the student"):
        LOSSES[name]()(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize("name", GRIDS)
def test_different_grids_are_refused_with_the_remedy(name) -> None:
    with pytest.raises(ValueError, match="grid is 2x2 and the teacher's 2x3; resize"):
        LOSSES[name]()(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 3))


@pytest.mark.parametrize("name", GRIDS)
def test_different_batches_are_refused(name) -> None:
    with pytest.raises(ValueError, match="different numbers of images"):
        LOSSES[name]()(torch.zeros(1, 3, 2, 2), torch.zeros(2, 3, 2, 2))


@pytest.mark.parametrize("name", ["cross_entropy", "intra_class", "inter_class"])
def test_labels_with_a_channel_axis_are_refused(name) -> None:
    student, teacher, labels = inputs(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"expects integer labels of shape \(2, height, width\)"):
        called(LOSSES[name](), student, teacher, labels[:, None])


@pytest.mark.parametrize("name", ["pixelwise", "channelwise", "dist", "image_relation"])
def test_a_temperature_of_zero_is_refused(name) -> None:
    with pytest.raises(ValueError, match=f"{name}: temperature must be above 0, but is 0"):
        LOSSES[name](temperature=0)
