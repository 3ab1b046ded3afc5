"""What any loss must do, over the table of losses and their published forms."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segdistill.losses import IGNORED, LOSSES, Loss

# Options beside `form` that change what is computed. A loss needs no line here.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [{"ohem": True, "min_kept": 0}],
    "pixelwise": [
        {"temperature": 4.0},
        {"standardise": True},
        {"top": 2, "beta": 4.0},
        {"confidence": 0.3},
        {"standardise": True, "top": 1, "confidence": 0.3, "temperature": 2.0},
    ],
    "decoupled": [{"beta": 8.0, "temperature": 4.0}, {"standardise": True}],
    "boundary": [{"part": "body"}, {"part": "body", "temperature": 4.0}],
    "inter_class": [
        {"ordered": True, "min_pixels": 1},
        {"target": "permuted"},
        {"target": "equal"},
    ],
    "position": [{"align": "logits"}, {"target": "ramp"}],
    "dist": [{"temperature": 4.0}],
    "image_relation": [{"nodes": 3, "temperature": 1.0}],
    "pixel_to_class": [{"temperature": 1.0}],
}
# The critic of `holistic` reads maps of 8x8 or more; its contract is in test_holistic.py.
LARGE = {"holistic"}


def cases(losses: Mapping[str, type[Loss]]) -> list[tuple[str, dict[str, Any]]]:
    """Each loss in each of its forms, and under the options above."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, loss in losses.items():
        forms = [{"form": form} for form in loss.forms if form != "default"]
        found += [(name, options) for options in [{}, *forms, *OPTIONS.get(name, [])]]
    return found


def takes(name: str, argument: str) -> bool:
    """Whether the loss's constructor or its `forward` has such an argument."""
    signatures = (inspect.signature(LOSSES[name]), inspect.signature(LOSSES[name].forward))
    return any(argument in signature.parameters for signature in signatures)


SMALL = {name: loss for name, loss in LOSSES.items() if name not in LARGE}
CASES = cases(SMALL)
# Not least, with no gradient, where the student equals the teacher: the fitted map of `position` is
# not the identity there (it is regularised), and a free one starts anywhere, as the one of `hint`
# does; the 1e-8 in DIST's released denominator leaves a gradient of that size. Placebos are drawn to
# something else than the teacher.
NOT_LEAST = [("position", {}), ("position", {"form": "paper"}), ("position", {"target": "ramp"})]
NOT_LEAST += [("dist", {"form": "dist"})]
NOT_LEAST += [("inter_class", {"target": target}) for target in ("permuted", "equal")]
NOT_LEAST += [("hint", options) for name, options in CASES if name == "hint"]
DISTILLING = [case for case in CASES if takes(case[0], "teacher") and case not in NOT_LEAST]
DEFAULTS = [(name, {}) for name in SMALL]
# SKD holds the norm constant on purpose: its gradient is not that of the value. Nor is one that stops at
# prototypes; its own test fixes them.
CONSTANT = [("pairwise", {"form": "skd"}), *(case for case in CASES if case[0] == "pixel_to_class")]
DIFFERENTIABLE = [case for case in CASES if case not in CONSTANT]


def ready(name: str, options: dict, channels: int, dtype: torch.dtype = torch.float32) -> Loss:
    """A loss that has been built and prepared for equal channels."""
    # Two steps are enough to fit a readout whose quality nobody asks for. In windows of seven pixels, drawn
    # labels have nothing but edges.
    few = {"steps": 2, "width": 3}
    loss = LOSSES[name](**options, **{key: n for key, n in few.items() if takes(name, key)})
    shape = torch.Size([2, channels, 6, 7])
    loss.build(shape, shape)
    generator = torch.Generator().manual_seed(3)
    pair = [torch.randn(shape, generator=generator) for _ in range(2)]
    loss.prepare([(pair[0], pair[1])])
    if name == "position":
        # After two steps no axis can be read, and the loss would be zero.
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


class Novel(Loss):
    """A loss that nobody has listed anywhere."""

    forms = ("default", "released")


def test_a_new_loss_and_its_forms_are_found_without_a_list() -> None:
    assert cases({"novel": Novel}) == [("novel", {}), ("novel", {"form": "released"})]
    assert {name for name, _ in CASES} | LARGE == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_forms_begin_with_ours_and_each_can_be_built(name) -> None:
    loss = LOSSES[name]
    assert loss.forms[0] == loss().form == "default"
    assert len(set(loss.forms)) == len(loss.forms)
    assert ("form" in inspect.signature(loss).parameters) == (len(loss.forms) > 1)
    for form in loss.forms[1:]:
        assert loss(form=form).form == form


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


# It compares all positions with the classes' prototypes, labelled or not.
READING_LABELS = [
    case for case in CASES if takes(case[0], "labels") and case[0] != "pixel_to_class"
]


@pytest.mark.parametrize(("name", "options"), READING_LABELS)
def test_an_image_without_labels_changes_no_value_unless_the_loss_says_so(name, options) -> None:
    student, teacher, labels = inputs(3, 5, 6, 7, dtype=torch.float64)
    few = student[:2].detach(), teacher[:2], labels[:2]
    labels[2] = IGNORED
    loss = ready(name, options, 5, torch.float64)
    ratio = called(loss, student, teacher, labels) / called(loss, *few)
    # As a zero among three images it would leave two thirds.
    expected = 2 / 3 if loss.averages_ignored else 1.0
    assert float(ratio.detach()) == pytest.approx(expected, rel=1e-9)


def test_the_losses_that_average_images_without_labels_are_known() -> None:
    found = {
        (name, *options.items())
        for name, options in CASES
        if ready(name, options, 3).averages_ignored
    }
    forms = {"intra_class": ("ifvd", "cirkd"), "boundary": ("paper",)}
    assert found == {(name, ("form", form)) for name, known in forms.items() for form in known}


STATISTICS = [("cross_entropy", {"ohem": True, "min_kept": 0}), ("inter_class", {})]
STATISTICS += [("inter_class", {"ordered": True, "min_pixels": 1}), ("position", {})]
STATISTICS += [("inter_class", {"target": target}) for target in ("permuted", "equal")]
STATISTICS += [("position", {"target": "ramp"}), ("hint", {"form": "srd"})]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_loss_that_depends_on_a_statistic_of_its_batch_says_so(name, options) -> None:
    whole = name in ("dist", "image_relation", "pixel_to_class") or (name, options) in STATISTICS
    assert bool(ready(name, options, 3).statistic) == whole


@pytest.mark.parametrize(
    ("name", "options"), [case for case in CASES if not ready(*case, 3).statistic]
)
def test_parts_of_a_batch_weighed_by_their_denominators_add_up_to_it(name, options) -> None:
    loss = ready(name, options, 5, torch.float64)
    student, teacher, labels = inputs(6, 5, 6, 7, dtype=torch.float64)
    labels[1, :7] = labels[4:] = IGNORED
    labels[2] = 3
    whole = called(loss, student, teacher, labels)
    whole_count = loss.denominator(labels, student.shape, teacher.shape)
    total, counted = torch.zeros(()), 0.0
    for part in (slice(0, 2), slice(2, 5), slice(5, 6)):
        own = student[part], teacher[part], labels[part]
        count = loss.denominator(own[2], own[0].shape, own[1].shape)
        fraction = 1.0 if count is None else float(count) / float(whole_count)
        total = total + fraction * called(loss, *own)
        counted += float(0 if count is None else count)
    assert counted == pytest.approx(float(0 if whole_count is None else whole_count))
    torch.testing.assert_close(total, whole, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(value, student)[0] for value in (total, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


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


@pytest.mark.parametrize("name", [name for name in LOSSES if takes(name, "form")])
def test_an_unknown_form_lists_the_known_ones(name) -> None:
    *others, last = LOSSES[name].forms
    known = f"{', '.join(others)} or {last}"
    with pytest.raises(ValueError, match=rf"^form is 'ours'; expected {known}$"):
        LOSSES[name](form="ours")


@pytest.mark.parametrize("name", [name for name in SMALL if SMALL[name].matches_channels])
def test_different_channels_are_refused_with_the_remedy(name) -> None:
    student, teacher, labels = inputs(1, 3, 6, 7)
    with pytest.raises(
        ValueError, match=r"student has 3 channels; expected the teacher's 4\. Project the student"
    ):
        called(ready(name, {}, 3), student, torch.cat([teacher, teacher[:, :1]], 1), labels)


@pytest.mark.parametrize("name", [name for name in SMALL if SMALL[name].matches_grid])
def test_different_grids_are_refused_with_the_remedy(name) -> None:
    student, teacher, labels = inputs(1, 3, 6, 7)
    with pytest.raises(ValueError, match=r"grid is 6x7; expected the teacher's 6x6\. Resize"):
        called(ready(name, {}, 3), student, teacher[..., :-1], labels)


@pytest.mark.parametrize("name", [name for name in SMALL if takes(name, "teacher")])
def test_different_batches_are_refused(name) -> None:
    student, teacher, labels = inputs(2, 3, 6, 7)
    with pytest.raises(ValueError, match=r"has 2 images; expected the teacher's 1\. Run both"):
        called(ready(name, {}, 3), student, teacher[:1], labels)


@pytest.mark.parametrize("name", [name for name in SMALL if takes(name, "labels")])
def test_labels_with_a_channel_axis_are_refused(name) -> None:
    student, teacher, labels = inputs(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"expected integers of shape \(2, height, width\)"):
        called(LOSSES[name](), student, teacher, labels[:, None])


@pytest.mark.parametrize("name", [name for name in SMALL if takes(name, "labels")])
def test_labels_of_any_integer_type_are_read_alike(name) -> None:
    student, teacher, labels = inputs(2, 3, 4, 4)
    loss = ready(name, {}, 3)
    expected = called(copy.deepcopy(loss), student, teacher, labels)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        value = called(copy.deepcopy(loss), student, teacher, labels.to(dtype))
        torch.testing.assert_close(value, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in SMALL if takes(name, "labels")])
def test_label_ids_that_cannot_be_are_refused(name) -> None:
    student, teacher, labels = inputs(2, 3, 4, 4)
    for bad in (-1, 256):
        labels[0, 1, 2] = bad
        with pytest.raises(
            ValueError, match=rf"{name}: label id is {bad}; expected 0\.\.\d+, or 255"
        ):
            called(ready(name, {}, 3), student, teacher, labels)


@pytest.mark.parametrize("name", ["cross_entropy", "decoupled", "boundary"])
def test_a_label_id_without_a_logit_is_refused(name) -> None:
    student, teacher, labels = inputs(2, 3, 4, 4)
    labels[0, 1, 2] = 3
    with pytest.raises(ValueError, match=rf"{name}: label id is 3; expected 0\.\.2, or 255"):
        called(ready(name, {}, 3), student, teacher, labels)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_tensor_that_is_not_finite_is_never_hidden(name, options, which, broken) -> None:
    if not takes(name, which):
        return
    student, teacher, labels = inputs(2, 4, 6, 7)
    student = student.detach()
    (student if which == "student" else teacher)[0, 1, 2, 3] = broken
    value = called(ready(name, options, 4), student, teacher, labels)
    assert value.isnan() or value.isinf()


@pytest.mark.parametrize("name", [name for name in LOSSES if takes(name, "temperature")])
def test_a_temperature_of_zero_is_refused(name) -> None:
    with pytest.raises(ValueError, match=f"{name}: temperature is 0; expected a positive number"):
        LOSSES[name](temperature=0)
