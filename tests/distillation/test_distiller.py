import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.distillation.catalogue import METHODS, PRESETS, build_method
from segdistill.distillation.distiller import Distiller
from segdistill.distillation.method import Method, Term
from tests.distillation.networks import Tiny, batch


def _distiller(method: str = "idd", width: int = 6, **networks: int) -> Distiller:
    torch.manual_seed(0)
    student, teacher = Tiny(width), Tiny(9, **networks)
    distiller = Distiller(student, build_method(method, num_classes=3), teacher)
    distiller.dry_pass(batch()[0])
    images, _ = batch()
    distiller.prepare([images] * 4)
    return distiller


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_finite_value_for_each_term_and_a_gradient(method: str) -> None:
    distiller = _distiller(method)
    values = distiller(*batch())
    assert set(values) == set(distiller.method.terms)
    total = distiller.method.total(values)
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None for p in distiller.student.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_every_paper_preset_runs_where_the_released_tap_exists(method: str) -> None:
    student, teacher = Tiny(6, stride=2), Tiny(9, stride=2)
    for network in (student, teacher):
        network.taps["features_released"] = "body"
    distiller = Distiller(student, build_method(method, 3, "paper"), teacher)
    distiller.dry_pass(batch()[0])
    distiller.prepare([batch()[0]] * 4)
    assert torch.isfinite(distiller.method.total(distiller(*batch())))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_weight_of_the_catalogue_says_where_it_comes_from(method: str, preset: str) -> None:
    for term in METHODS[method](preset).values():
        assert term.source in {"published", "released code", "assumed", "tuned"}


def test_the_teacher_is_no_part_of_parameters_state_or_modes() -> None:
    distiller = _distiller()
    teacher = distiller.teacher
    assert teacher is not None
    theirs = {id(p) for p in teacher.parameters()}
    assert not theirs & {id(p) for p in distiller.parameters()}
    assert not any("teacher" in key for key in distiller.state_dict())
    distiller.train()
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_step_changes_neither_the_teachers_weights_nor_its_statistics() -> None:
    distiller = _distiller()
    assert distiller.teacher is not None
    before = copy.deepcopy(distiller.teacher.state_dict())
    distiller.train()
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    distiller.method.total(distiller(*batch())).backward()
    optimizer.step()
    for key, value in distiller.teacher.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_the_dry_pass_and_the_preparation_move_no_running_statistic() -> None:
    torch.manual_seed(0)
    student = Tiny(6)
    before = copy.deepcopy(student.state_dict())
    distiller = Distiller(student, build_method("idd", 3), Tiny(9))
    distiller.dry_pass(batch()[0])
    distiller.prepare([batch()[0]] * 4)
    for key, value in student.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert student.training


def test_the_preparation_keeps_the_hooks_that_a_network_needs() -> None:
    class Recording(Tiny):
        """Reads its features through a hook of its own, as transformers does."""

        def __init__(self) -> None:
            super().__init__(6)
            self.body.register_forward_hook(lambda body, _, output: seen.append(output))

        def forward(self, images: Tensor) -> Tensor:
            super().forward(images)
            return self.head(torch.relu(seen.pop()))

    seen: list[Tensor] = []
    torch.manual_seed(0)
    distiller = Distiller(Recording(), build_method("idd", 3), Tiny(9))
    distiller.dry_pass(batch()[0])
    distiller.prepare([batch()[0]] * 4)
    assert distiller.method.total(distiller(*batch())).isfinite()


def test_the_tap_table_says_what_is_aligned() -> None:
    torch.manual_seed(0)
    distiller = Distiller(Tiny(6), build_method("idd", 3), Tiny(9, stride=2))
    rows = {row.term: row for row in distiller.dry_pass(batch()[0])}
    assert rows["cross_entropy"].teacher is None
    assert rows["channelwise"].student == (2, 3, 8, 10)
    assert rows["channelwise"].teacher == (2, 3, 16, 20)
    assert rows["channelwise"].alignment == "resize to 8x10"
    assert rows["inter_class"].alignment == "none"


def test_logits_meet_the_teachers_where_the_student_says_and_labels_at_its_output() -> None:
    torch.manual_seed(0)
    student, teacher = Tiny(6), Tiny(9)
    student.taps["logits_distilled"] = "aux"
    teacher.taps["logits_distilled"] = "stem"  # the teacher's own word is its output
    distiller = Distiller(student, build_method("kd", 3), teacher)
    taps = {row.term: row.tap for row in distiller.dry_pass(batch()[0])}
    assert taps["cross_entropy"] == "logits"
    assert taps["pixelwise"] == "logits_distilled"
    distiller(*batch())["pixelwise"].backward()
    assert student.aux.weight.grad is not None
    assert student.head.weight.grad is None, "the output learns from the labels alone"
    with torch.no_grad():
        before = distiller(*batch(), only=["pixelwise"])["pixelwise"]
        teacher.head.weight.mul_(2)
        assert distiller(*batch(), only=["pixelwise"])["pixelwise"] != before


def test_what_a_loss_prepares_is_read_there_too() -> None:
    seen = []

    class Prepared(nn.Module):
        def prepare(self, pairs: list[tuple[Tensor, Tensor | None]]) -> dict[str, float]:
            seen.extend(pairs)
            return {}

        def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
            return (student - teacher).square().mean()

    student = Tiny(6)
    student.taps["logits_distilled"] = "aux"
    torch.nn.init.zeros_(student.aux.weight)
    torch.nn.init.ones_(student.aux.bias)
    distiller = Distiller(student, Method("m", {"x": Term(Prepared(), 1.0)}), Tiny(9))
    distiller.dry_pass(batch()[0])
    distiller.prepare([batch()[0]] * 4)
    assert len(seen) == 4
    assert torch.equal(seen[0][0], torch.ones_like(seen[0][0]))


def test_channels_are_projected_on_the_students_side_and_trained_with_it() -> None:
    terms = {"features": {"loss": "channelwise", "on": "features", "weight": 1.0}}
    distiller = Distiller(Tiny(6), build_method("supervised", 3, terms=terms), Tiny(9))
    (row,) = [r for r in distiller.dry_pass(batch()[0]) if r.term == "features"]
    assert row.alignment == "project 6 -> 9"
    distiller(*batch())["features"].backward()
    projection = distiller.alignments["features"].project
    assert projection.weight.shape == (9, 6, 1, 1)
    assert projection.weight.grad is not None


@pytest.mark.parametrize(("form", "layers"), [("cirkd", 1), ("torchdistiller", 3)])
def test_a_form_with_a_projection_of_its_own_needs_no_other(form: str, layers: int) -> None:
    options = {"form": form}
    terms = {"mine": {"loss": "channelwise", "on": "features", "weight": 1.0, "options": options}}
    distiller = Distiller(Tiny(6), build_method("supervised", 3, terms=terms), Tiny(9, stride=2))
    (row,) = [r for r in distiller.dry_pass(batch()[0]) if r.term == "mine"]
    assert row.alignment == "loss's projection 6 -> 9, resize to 8x10"
    distiller(*batch())["mine"].backward()
    trained = list(distiller.losses["mine"].parameters())
    assert len(trained) == layers
    assert trained[0].shape == (9, 6, 1, 1)
    assert all(parameter.grad is not None for parameter in trained)


def test_a_projecting_form_still_refuses_other_classes() -> None:
    method = build_method("cwd", 3, terms={"channelwise": {"options": {"form": "cirkd"}}})
    distiller = Distiller(Tiny(6), method, Tiny(9, num_classes=4))
    with pytest.raises(ValueError, match="predicts 3 classes; expected the teacher's 4"):
        distiller.dry_pass(batch()[0])


def test_an_auxiliary_term_is_left_out_where_the_student_has_no_such_head() -> None:
    distiller = Distiller(Tiny(6, aux=False), build_method("supervised", 3))
    assert list(distiller.method.terms) == ["cross_entropy"]


@pytest.mark.parametrize("part", ["all", "module", "weight", "statistics", "inside"])
def test_student_and_teacher_that_share_weights_or_statistics_are_refused(part: str) -> None:
    student, teacher = Tiny(6), Tiny(6)
    if part == "all":
        teacher = student
    elif part == "module":
        teacher.stem = student.stem
    elif part == "weight":
        teacher.stem.weight = student.stem.weight
    elif part == "statistics":
        teacher.body[1].running_mean = student.body[1].running_mean
    else:
        student.add_module("guide", teacher)
    with pytest.raises(ValueError, match=r"student and teacher share .*; expected networks"):
        Distiller(student, build_method("kd", 3), teacher)
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_constants_and_frozen_parts_may_be_shared() -> None:
    student, teacher, mean = Tiny(6), Tiny(6), torch.zeros(3)
    for network in (student, teacher):
        network.register_buffer("mean", mean)
    teacher.stem = student.stem.requires_grad_(False)
    Distiller(student, build_method("kd", 3), teacher)


def test_a_method_that_learns_from_a_teacher_needs_one() -> None:
    with pytest.raises(ValueError, match="needs a teacher, but none is given"):
        Distiller(Tiny(6), build_method("kd", 3))


def test_an_unknown_tap_names_owner_and_nearest() -> None:
    terms = {"channelwise": {"on": "featurs"}}
    with pytest.raises(
        ValueError, match=r"'channelwise': the student has no tap named 'featurs'.*'features'"
    ):
        Distiller(Tiny(6), build_method("cwd", 3, terms=terms), Tiny(9))


def test_other_numbers_of_classes_are_refused_in_the_dry_pass() -> None:
    distiller = Distiller(Tiny(6), build_method("kd", 3), Tiny(9, num_classes=4))
    with pytest.raises(ValueError, match="predicts 3 classes; expected the teacher's 4"):
        distiller.dry_pass(batch()[0])


def test_gradient_shares_are_norms_at_the_last_shared_weight_relative_to_the_task() -> None:
    distiller = _distiller("kd")
    anchor = distiller.anchor()
    assert anchor is distiller.student.body[0].weight
    values = distiller(*batch())
    shares = distiller.gradient_shares()
    assert shares["cross_entropy"] == 1.0
    assert "cross_entropy_aux" not in shares
    task, pixel = (
        torch.autograd.grad(values[n], anchor, retain_graph=True)[0].norm()
        for n in ("cross_entropy", "pixelwise")
    )
    weight = distiller.method.terms["pixelwise"].weight
    assert shares["pixelwise"] == pytest.approx(float(weight * pixel / task), rel=1e-5)


def test_the_anchor_before_a_classifiers_input_is_the_last_kernel_before_it() -> None:
    student = Tiny(6)
    student.taps["features"] = "head:input"
    distiller = Distiller(student, build_method("kd", 3), Tiny(9))
    assert distiller.anchor() is student.body[0].weight


def test_measuring_shares_leaves_the_gradients_of_the_step_alone() -> None:
    plain, measured = _distiller(), _distiller()
    for distiller, with_shares in ((plain, False), (measured, True)):
        values = distiller(*batch())
        if with_shares:
            assert distiller.gradient_shares()
        distiller.method.total(values).backward()
    for own, other in zip(plain.parameters(), measured.parameters(), strict=True):
        if own.grad is not None:
            torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=0)


def test_a_loss_may_ask_for_images_and_for_nothing_else() -> None:
    class WithImages(nn.Module):
        def forward(self, student: Tensor, images: Tensor) -> Tensor:
            return student.mean() + images.mean()

    class Odd(nn.Module):
        def forward(self, student: Tensor, weather: Tensor) -> Tensor:
            return student.mean()

    distiller = Distiller(Tiny(6), Method("mine", {"term": Term(WithImages(), 1.0)}))
    images, labels = batch()
    torch.testing.assert_close(
        distiller(images, labels)["term"], distiller.student(images).mean() + images.mean()
    )
    with pytest.raises(ValueError, match="no loss input named 'weather'"):
        Method("mine", {"term": Term(Odd(), 1.0)})


class Changing(nn.Module):
    """A loss of somebody's own that changes one of its arguments."""

    def __init__(self, argument: str) -> None:
        super().__init__()
        self.argument = argument

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        given = {"student": student, "teacher": teacher, "labels": labels, "images": images}
        if self.argument == "detached":
            student.detach_()
        elif self.argument in given:
            with torch.no_grad():
                given[self.argument][0].add_(1)  # through a view
        return (student - teacher.mean(1, keepdim=True)).square().mean()


@pytest.mark.parametrize("argument", ["student", "teacher", "labels", "images", "detached", "none"])
def test_a_loss_that_changes_what_other_terms_read_is_refused(argument: str) -> None:
    term = Term(Changing(argument), 1.0, on="features")
    distiller = Distiller(Tiny(6), Method("own", {"own": term}), Tiny(9))
    distiller.dry_pass(batch()[0])
    images, labels = (one.clone() for one in batch())
    if argument == "none":
        assert torch.isfinite(distiller(images, labels)["own"])
        return
    named = "student" if argument == "detached" else argument
    with pytest.raises(ValueError, match=f"'own': its loss changes {named} in place; .*clone"):
        distiller(images, labels)


def test_the_alignment_of_corners_comes_from_the_student() -> None:
    student = Tiny(6)
    student.align_corners = True
    distiller = Distiller(student, build_method("supervised", 3))
    assert distiller.method.terms["cross_entropy"].loss.align_corners is True


def test_closing_takes_the_hooks_out_of_both_networks() -> None:
    distiller = _distiller("kd")
    networks = [distiller.student, distiller.teacher]
    assert any(m._forward_hooks for n in networks for m in n.modules())
    distiller.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for n in networks for m in n.modules())


def test_tensors_are_aligned_in_full_precision_under_autocast() -> None:
    distiller = Distiller(Tiny(6), build_method("kd", 3), Tiny(9, stride=2))
    distiller.dry_pass(batch()[0])
    with torch.autocast("cpu", torch.bfloat16):
        values = distiller(*batch())
    assert values["pixelwise"].dtype == torch.float32
    assert torch.isfinite(values["pixelwise"])


def _teacher_classes(teacher: nn.Module, images: Tensor, align_corners: bool) -> Tensor:
    with torch.no_grad():
        logits = teacher(images)
    size = images.shape[-2:]
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners).argmax(1)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_teachers_classes_stand_for_the_labels_of_every_term(align_corners: bool) -> None:
    torch.manual_seed(0)
    student, teacher = Tiny(6), Tiny(9).eval()
    teacher.align_corners = align_corners
    images, labels = batch()
    # Enough that the classes differ from place to place, and from the labels.
    classes = _teacher_classes(teacher, images, align_corners)
    assert len(classes.unique()) > 1 and (classes != labels).any()
    method = build_method("idd", num_classes=3)
    given, taken = (
        Distiller(copy.deepcopy(student), copy.deepcopy(method), copy.deepcopy(teacher), source)
        for source in ("data", "teacher")
    )
    for distiller in (given, taken):
        torch.manual_seed(1)
        distiller.dry_pass(images)
        distiller.prepare([images] * 4)
    with_labels, without = given(images, classes), taken(images, torch.full_like(labels, 255))
    for name, value in with_labels.items():
        torch.testing.assert_close(value, without[name], rtol=0, atol=0, msg=name)
    assert with_labels["cross_entropy"] != given(images, labels)["cross_entropy"]


def test_a_student_can_learn_from_the_teachers_classes_alone() -> None:
    torch.manual_seed(0)
    method = build_method("supervised", num_classes=3)
    distiller = Distiller(Tiny(6), method, Tiny(9), labels="teacher")
    images, labels = batch()
    values = distiller(images, torch.full_like(labels, 255))
    assert values["cross_entropy"] > 0
    distiller.method.total(values).backward()
    assert all(p.grad is None for p in distiller.teacher.parameters())  # type: ignore[union-attr]


def test_labels_of_the_teacher_need_one_with_logits() -> None:
    method = build_method("supervised", num_classes=3)
    with pytest.raises(
        ValueError, match=r"method\.labels is teacher, but no teacher is given; add `teacher`"
    ):
        Distiller(Tiny(6), method, labels="teacher")
    teacher = Tiny(9)
    teacher.taps = {"features": "body"}
    with pytest.raises(
        ValueError, match=r"method\.labels is teacher: the teacher has no tap named 'logits'"
    ):
        Distiller(Tiny(6), method, teacher, "teacher")


class Unlisted(nn.Module):
    """A custom loss with nothing but its value."""

    def forward(self, student: Tensor) -> Tensor:
        return student.square().mean()


def test_a_custom_loss_is_a_mean_over_images_and_has_no_statistic() -> None:
    distiller = Distiller(Tiny(6), Method("own", {"own": Term(Unlisted(), 1.0)}))
    images, labels = batch(images=3)
    distiller.dry_pass(images)
    assert distiller.denominators(images, labels) == {"own": torch.tensor(3.0)}
    assert distiller.statistics() == {}


def test_statistics_are_listed_by_term() -> None:
    assert _distiller("idd").statistics() == {
        "inter_class": "mean edge",
        "position": "moments of the map",
    }
    assert Distiller(Tiny(6), build_method("dist", 3), Tiny(9)).statistics() == {"dist": "columns"}


def test_denominators_of_another_size_than_the_dry_pass_are_refused() -> None:
    distiller = _distiller("ifvd")
    with pytest.raises(ValueError, match=r"images are 16x24; expected 32x40\. Call dry_pass"):
        distiller.denominators(*batch((16, 24)))


def test_the_teachers_labels_are_counted_where_they_are_used() -> None:
    """The data has no label at all."""
    student, teacher = Tiny(6), Tiny(9)
    distiller = Distiller(student, build_method("ifvd", 3), teacher, labels="teacher")
    images, labels = batch()
    distiller.dry_pass(images)
    counted = distiller.denominators(images, torch.full_like(labels, 255))
    assert counted["cross_entropy"] == labels.numel()
    assert counted["intra_class"] == labels.numel() / 16


def _gated(method: str, share: float) -> tuple[Distiller, Tensor, Tensor]:
    """A distiller that learns from the teacher's surest pixels; images, and where it is sure."""
    torch.manual_seed(0)
    student, teacher = Tiny(6), Tiny(9).eval()
    teacher.head.weight.data *= 5
    images, _ = batch(images=4)
    full = F.interpolate(teacher(images), images.shape[-2:], mode="bilinear")
    probability = full.detach().softmax(1).amax(1)
    confidence = float(probability.quantile(1 - share)) if share else 1.0
    sure = probability >= confidence
    distiller = Distiller(student, build_method(method, 3), teacher, "teacher", confidence)
    distiller.dry_pass(images)
    return distiller, images, sure


def test_only_sure_pixels_count_and_all_divide() -> None:
    distiller, images, sure = _gated("supervised", 0.3)
    assert 0.29 < sure.float().mean() < 0.31
    teacher = distiller.teacher
    assert teacher is not None
    classes = _teacher_classes(teacher, images, False)
    values = distiller(images, torch.full_like(classes, 255))
    logits = distiller.student(images)
    full = F.interpolate(logits, images.shape[-2:], mode="bilinear")
    expected = (F.cross_entropy(full, classes, reduction="none") * sure).sum() / classes.numel()
    torch.testing.assert_close(values["cross_entropy"], expected)


@pytest.mark.parametrize("method", ["supervised", "ifvd", "idd"])
def test_parts_of_a_gated_batch_add_up_to_it(method: str) -> None:
    distiller, images, _ = _gated(method, 0.3)
    if method == "idd":
        distiller.prepare([images] * 4)
    distiller.eval()
    labels = torch.full((4, *images.shape[-2:]), 255)
    # The mean edge and the moments are statistics of a batch.
    names = [n for n in distiller.method.terms if n not in distiller.statistics()]
    whole, counted = distiller(images, labels), distiller.denominators(images, labels)
    for name in names:
        total = torch.zeros(())
        for part in (slice(0, 1), slice(1, 4)):
            some = distiller.denominators(images[part], labels[part])[name]
            share = some / counted[name]
            total = total + share * distiller(images[part], labels[part])[name]
        torch.testing.assert_close(total, whole[name], msg=name)


def test_a_gate_that_no_pixel_passes_gives_zero_with_a_gradient() -> None:
    distiller, images, sure = _gated("ifvd", 0.0)
    assert not sure.any()
    values = distiller(images, torch.full((4, *images.shape[-2:]), 255))
    assert values["cross_entropy"] == values["intra_class"] == 0
    assert values["pixelwise"] > 0
    distiller.method.total(values).backward()
    assert all(torch.isfinite(p.grad).all() for p in distiller.student.parameters())


def test_images_without_labels_get_the_teachers_and_others_keep_theirs() -> None:
    torch.manual_seed(0)
    teacher = Tiny(9).eval()
    distiller = Distiller(Tiny(6), build_method("supervised", 3), teacher, "both")
    images, labels = batch(images=4)
    distiller.dry_pass(images)
    distiller.eval()
    labels[:, :5] = labels[2:] = 255
    mixed = labels.clone()
    mixed[2:] = _teacher_classes(teacher, images, False)[2:]
    logits = distiller.student(images)
    full = F.interpolate(logits, images.shape[-2:], mode="bilinear")
    expected = F.cross_entropy(full, mixed, ignore_index=255)
    torch.testing.assert_close(distiller(images, labels)["cross_entropy"], expected)
    assert distiller.denominators(images, labels)["cross_entropy"] == (mixed != 255).sum()
    # An image with labels whose crop shows none of them is not taught by the teacher.
    flags = torch.tensor([True, True, True, False])
    mixed[2] = 255
    expected = F.cross_entropy(full, mixed, ignore_index=255)
    torch.testing.assert_close(distiller(images, labels, flags)["cross_entropy"], expected)


def test_a_gate_lets_labels_of_the_data_through() -> None:
    gated, images, sure = _gated("supervised", 0.3)
    teacher, confidence = gated.teacher, gated._confidence
    assert teacher is not None
    distiller = Distiller(gated.student, gated.method, teacher, "both", confidence)
    distiller.dry_pass(images)
    distiller.eval()
    classes = _teacher_classes(teacher, images, False)
    labels = (classes + 1) % 3
    labels[2:] = 255
    full = F.interpolate(distiller.student(images), images.shape[-2:], mode="bilinear")
    each = F.cross_entropy(full, torch.where(labels == 255, classes, labels), reduction="none")
    sure[:2] = True
    value = distiller(images, labels)["cross_entropy"]
    torch.testing.assert_close(value, (each * sure).sum() / classes.numel())


@pytest.mark.parametrize("labels", ["teacher", "both"])
def test_what_a_gate_lets_through_is_counted_by_class(labels: Any) -> None:
    gated, images, sure = _gated("supervised", 0.3)
    teacher = gated.teacher
    assert teacher is not None
    distiller = Distiller(gated.student, gated.method, teacher, labels, gated._confidence)
    distiller.dry_pass(images)
    flags = torch.tensor([True, False, False, False])
    distiller(images, torch.full((4, *images.shape[-2:]), 255), flags)
    table = distiller.kept(flags)["labels"]
    classes = _teacher_classes(teacher, images, False)
    some = slice(1 if labels == "both" else 0, None)
    for number in range(3):
        of_class = classes[some] == number
        expected = [int(of_class.sum()), int((of_class & sure[some]).sum())]
        assert table[number].tolist() == expected
    assert table[3:].sum() == 0


def test_the_gate_of_pixelwise_is_counted_on_its_grid() -> None:
    torch.manual_seed(0)
    teacher = Tiny(9).eval()
    options = {"pixelwise": {"options": {"confidence": 0.4}}}
    distiller = Distiller(Tiny(6), build_method("kd", 3, terms=options), teacher)
    images, labels = batch()
    distiller.dry_pass(images)
    distiller(images, labels)
    probability, classes = teacher(images).softmax(1).max(1)
    kept = distiller.kept()
    assert list(kept) == ["pixelwise"]
    for number in range(3):
        of_class = classes == number
        expected = [int(of_class.sum()), int((of_class & (probability >= 0.4)).sum())]
        assert kept["pixelwise"][number].tolist() == expected
    assert 0 < int(kept["pixelwise"][:, 1].sum()) < classes.numel()


def test_without_a_gate_nothing_is_counted() -> None:
    distiller = _distiller("kd")
    distiller(*batch())
    assert distiller.kept() == {}


@pytest.mark.parametrize("labels", ["teacher", "both"])
def test_classes_of_a_teacher_that_is_not_finite_are_not_learnt(labels: Any) -> None:
    teacher = Tiny(9)
    distiller = Distiller(Tiny(6), build_method("supervised", 3), teacher, labels)
    images, given = batch()
    distiller.dry_pass(images)
    assert distiller(images, given)["cross_entropy"].isfinite()
    torch.nn.init.constant_(teacher.head.bias[:1], torch.nan)
    assert distiller(images, given)["cross_entropy"].isnan()
