"""Maps of two networks meet at the same places of the image, whatever grids they have."""

import gc
import itertools
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segdistill.distillation import alignment as alignments
from segdistill.distillation.alignment import Alignment, Once
from segdistill.distillation.catalogue import METHODS, build_method, method_terms
from segdistill.distillation.distiller import Distiller
from segdistill.distillation.method import Method, Term
from segdistill.geometry import Cells, labels_at, tap_cells, to_pixels
from segdistill.losses import CrossEntropy, HolisticKD, InterClassDistance, IntraClassVariation
from segdistill.losses.base import Loss
from segdistill.losses.position import PositionInformation
from segdistill.losses.readout import ramps
from tests.distillation.networks import Tiny, batch


def rounded_up(stride: int, more: int = 0):
    return lambda side: -(-side // stride) + more


# Who it is like, side of its map for a side of the image, and what it declares.
GRIDS = {
    "espnet": (rounded_up(8), {"align_corners": True, "cells": {"features": (8, 0)}}),
    "pspnet_r18": (
        lambda side: (-(-side // 2) // 2 + 2) // 2,
        {"align_corners": True, "cells": {"features": (8, 0)}},
    ),
    "by corners": (rounded_up(16), {"align_corners": True}),
    "deeplabv3plus": (rounded_up(4), {"align_corners": False}),
    "compact": (rounded_up(4), {"align_corners": False, "cells": {"features": (4, 0)}}),
    "fcn": (rounded_up(32, 1), {"align_corners": False, "cells": {"features": (32, 12.5)}}),
    "enet": (rounded_up(2), {"align_corners": True, "cells": {"features": (2, 0)}}),
    "silent": (rounded_up(8), {}),
}
PAIRS = list(itertools.permutations(GRIDS, 2))


def declaring(name: str) -> nn.Module:
    net = nn.Module()
    for attribute, value in GRIDS[name][1].items():
        setattr(net, attribute, value)
    return net


def cells_of(name: str, image: tuple[int, int]) -> Cells:
    rows, columns = (GRIDS[name][0](side) for side in image)
    return tap_cells(declaring(name), "features", (rows, columns), image)


def ramp(cells: Cells) -> Tensor:
    rows, columns = cells.rows.centres(), cells.columns.centres()
    return torch.stack([rows[:, None].expand(cells.size), columns.expand(cells.size)])[None]


@pytest.mark.parametrize("image", [(512, 512), (180, 241), (257, 225)])
@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_a_ramp_is_off_by_a_twentieth_of_a_cell_at_most(student, teacher, image) -> None:
    pair = cells_of(student, image), cells_of(teacher, image)
    alignment = Alignment(2, 2, channels=False, grid=True)
    own, other = alignment(*map(ramp, pair), pair)
    met, same = alignment.common(pair)
    assert own.shape == other.shape and met == same
    for axis, line in enumerate((met.rows, met.columns)):
        centres = line.centres()
        inside = torch.ones(line.cells, dtype=torch.bool)
        for each in pair:
            own_line = (each.rows, each.columns)[axis]
            # Where cells are averaged over, the border cuts off what lies beyond it.
            reach = max(line.stride - own_line.stride, 0)
            ends = own_line.centres()[[0, -1]]
            inside &= (centres >= ends[0] + reach) & (centres <= ends[1] - reach)
        assert inside.any()
        for found in (own, other):
            seen = found[0, axis, :, 0] if axis == 0 else found[0, axis, 0]
            assert float((seen - centres)[inside].abs().max()) <= 0.05 * line.stride


def test_espnets_cells_are_the_first_of_pspnets() -> None:
    image = (512, 512)
    pair = cells_of("espnet", image), cells_of("pspnet_r18", image)
    assert (pair[0].size, pair[1].size) == ((64, 64), (65, 65))
    student, teacher = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 65, 65)
    own, other = Alignment(3, 3, channels=False, grid=True)(student, teacher, pair)
    assert torch.equal(own, student)
    torch.testing.assert_close(other, teacher[..., :64, :64])


def test_the_rule_of_released_codes_is_the_antialiased_resize_by_half_pixels() -> None:
    student, teacher = torch.randn(1, 3, 9, 12), torch.randn(1, 3, 17, 15)
    own, other = Alignment(3, 3, channels=False, grid=True)(student, teacher, None)
    assert torch.equal(own, student)
    expected = F.interpolate(teacher, (9, 12), mode="bilinear", antialias=True)
    assert torch.equal(other, expected)


def test_a_copy_of_the_aligned_target_scores_as_the_target_at_the_students_cells() -> None:
    # What a teacher at stride 4 would know of smooth shapes; the student has 12x15 cells by corners.
    noise = torch.randn(24, 5, 7, 9, generator=torch.Generator().manual_seed(0))
    labels = F.interpolate(noise, (180, 240), mode="bicubic").argmax(1)
    image = (180, 240)
    own = Cells.by_corners((12, 15), image)
    other = Cells.by_corners((45, 60), image, align_corners=False)
    target = F.one_hot(labels_at(labels, other), 5).permute(0, 3, 1, 2).double()
    copied, aligned = Alignment(5, 5, channels=False, grid=True)(
        torch.zeros(24, 5, 12, 15), target, (own, other)
    )
    assert copied.shape == aligned.shape
    found = miou(to_pixels(aligned, own).argmax(1), labels)
    plain = miou(to_pixels(independent(target, own), own).argmax(1), labels)
    released = Alignment(5, 5, channels=False, grid=True)(copied, target, None)[1]
    before = miou(to_pixels(released, own).argmax(1), labels)
    assert abs(found - plain) <= 0.2
    assert found > before + 1, (found, before, plain)


def independent(target: Tensor, own: Cells) -> Tensor:
    """The triangle of an antialiased resize in plain loops: its centres are `own`'s."""
    out = target
    for axis, line in ((2, own.rows), (3, own.columns)):
        cells = out.shape[axis]
        stride = line.pixels / cells
        scale = line.stride / stride
        rows = []
        for i in range(line.cells):
            place = (line.offset + i * line.stride + 0.5) / stride - 0.5
            weights = [max(0.0, 1 - abs(place - j) / scale) for j in range(cells)]
            rows.append([w / sum(weights) for w in weights])
        weight = torch.tensor(rows, dtype=torch.float64)
        out = torch.movedim(torch.movedim(out, axis, -1) @ weight.T, -1, axis)
    return out


def miou(found: Tensor, labels: Tensor) -> float:
    ious = []
    for k in labels.unique():
        here, there = found == k, labels == k
        ious.append(float((here & there).sum()) / float((here | there).sum()))
    return 100 * sum(ious) / len(ious)


class Spy(Loss):
    """Keeps what it is told and given."""

    matches_grid = True

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.seen = (self.cells, student, teacher)
        return (student - teacher).square().mean()


def spied(cells: str = "declared", declared: dict | None = None) -> tuple[Spy, list]:
    torch.manual_seed(0)
    student, teacher = Tiny(6), Tiny(6, stride=2)
    student.cells = declared or {}
    spy = Spy()
    term = Term(spy, 1.0, "features", cells=cells)
    distiller = Distiller(student, Method("m", {"x": term}), teacher)
    rows = distiller.dry_pass(batch()[0])
    distiller(*batch())
    return spy, rows


def test_a_loss_is_told_where_the_cells_lie_that_it_compares() -> None:
    spy, (row,) = spied()
    half = Cells.by_corners((8, 10), (32, 40), align_corners=False)
    assert spy.seen[0] == (half, half)
    assert row.alignment == "resize to 8x10"


def test_what_the_student_declares_is_where_the_teacher_is_read() -> None:
    told = [spied(declared=places)[0].seen for places in ({}, {"features": (4, 0)})]
    assert told[1][0] == (Cells.at((8, 10), (32, 40), 4),) * 2
    assert torch.equal(told[0][1], told[1][1]) and not torch.equal(told[0][2], told[1][2])


def test_released_cells_are_told_to_nobody() -> None:
    spy, _ = spied(cells="released")
    assert spy.seen[0] is None
    with pytest.raises(ValueError, match="cells is 'half'; expected declared or released"):
        Term(Spy(), 1.0, cells="half")


def test_equal_grids_in_other_places_are_brought_together() -> None:
    torch.manual_seed(0)
    student, teacher = Tiny(6), Tiny(6)
    student.align_corners = True
    distiller = Distiller(student, Method("m", {"x": Term(Spy(), 1.0)}), teacher)
    (row,) = distiller.dry_pass(batch()[0])
    assert row.alignment == "move to the student's cells"


def test_a_loss_of_ones_own_keeps_what_it_calls_cells() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.ModuleList([nn.Identity()])

        def forward(self, student: Tensor) -> Tensor:
            return student.mean()

    loss = Own()
    Distiller(Tiny(6), Method("m", {"x": Term(loss, 1.0)}))(*batch())
    assert isinstance(loss.cells, nn.ModuleList)


def test_a_declaration_that_cannot_be_is_refused_at_the_door() -> None:
    teacher = Tiny(9)
    teacher.cells = {"features": (-8, 0)}
    with pytest.raises(ValueError, match=r"the teacher's cells.features is \(-8, 0\); expected"):
        Distiller(Tiny(6), build_method("kd", 3), teacher)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "supervised"])
def test_presets_paper_keep_the_rule_of_released_codes(method) -> None:
    for preset, cells in (("default", "declared"), ("paper", "released")):
        terms = method_terms(method, preset).values()
        assert {t.cells for t in terms if t.loss != "cross_entropy"} == {cells}
    changed = build_method(method, 3, "paper", {"cross_entropy": {"cells": "released"}})
    assert changed.terms["cross_entropy"].cells == "released"


def test_tokens_take_the_labels_at_the_cells_of_each_network() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 9, 9)
    labels = torch.randint(0, 3, (2, 64, 64), generator=generator)
    places = Cells.at((8, 8), (64, 64), 8, 3), Cells.at((9, 9), (64, 64), 8, -2)
    loss = InterClassDistance(min_pixels=1)
    loss.cells = places
    apart = [labels_at(labels, cells) for cells in places]

    def blocks(cells: Tensor) -> Tensor:
        return cells.repeat_interleave(8, 1).repeat_interleave(8, 2)

    # On labels that are constant in each cell only their own network's tokens can be told.
    plain = InterClassDistance(min_pixels=1)
    tokens = plain(student, student, blocks(apart[0]))
    loss.cells = (places[0], places[0])
    torch.testing.assert_close(loss(student, student, labels), tokens)
    loss.cells = places
    assert loss(student, teacher, labels) != plain(student, teacher, labels)


def test_intra_class_reads_labels_at_the_cells_unless_the_form_is_published() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    labels = torch.randint(0, 3, (2, 64, 64), generator=generator)
    told = (Cells.at((8, 8), (64, 64), 8, 4),) * 2
    for form, changes in (("default", True), ("ifvd", False), ("cirkd", False)):
        loss = IntraClassVariation(form=form)
        plain = loss(student, teacher, labels)
        loss.cells = told
        assert (loss(student, teacher, labels) != plain) == changes


def test_cross_entropy_follows_the_cells_and_an_option_goes_first() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    labels = torch.randint(0, 3, (2, 16, 20), generator=generator)
    told = CrossEntropy()
    told.cells = (Cells.by_corners((4, 5), (16, 20)),)
    assert torch.equal(told(logits, labels), CrossEntropy(align_corners=True)(logits, labels))
    asked = CrossEntropy(align_corners=False)
    asked.cells = told.cells
    assert torch.equal(asked(logits, labels), CrossEntropy()(logits, labels))


def test_position_is_told_in_the_frame_of_the_image() -> None:
    features = torch.zeros(1, 1, 4, 5)
    x, y = ramps(features, Cells.at((4, 5), (33, 41), 8, 2))[0]
    assert x[0].tolist() == pytest.approx([10 / 40, 18 / 40, 26 / 40])
    assert y[:, 0].tolist() == pytest.approx([10 / 32, 18 / 32])
    # Cells off the image are at its border.
    assert float(ramps(features, Cells.at((4, 5), (33, 41), 32, -8))[0, 0].max()) == 1
    loss = PositionInformation(target="ramp")
    loss.build(torch.Size([1, 1, 4, 5]), None)
    values = []
    for cells in (None, (Cells.at((4, 5), (33, 41), 8, 2),)):
        loss.cells = cells
        values.append(loss(torch.ones(2, 1, 4, 5) * torch.arange(5.0)))
    assert values[0] != values[1]


def test_the_conditional_critic_sees_the_image_at_the_cells() -> None:
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for form, changes in (("default", True), ("skd", False)):
        loss = HolisticKD(form=form, conditional=True).eval()
        loss.build(logits.shape, logits.shape)
        loss.eval()
        plain = loss(logits, logits, image)
        loss.cells = (Cells.at((8, 8), (64, 64), 8),) * 2
        assert (loss(logits, logits, image) != plain) == changes


class AnyWidth(Loss):
    """Keeps what it is given, of any channels on one grid."""

    matches_grid = True

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.seen = (student, teacher)
        return student.square().mean() + teacher.mean()


class TeachersWidth(AnyWidth):
    """Needs the teacher's channels, so that its student is projected."""

    matches_channels = True


def several(cells: str = "declared") -> tuple[Distiller, dict[str, AnyWidth]]:
    torch.manual_seed(0)
    losses = {"one": AnyWidth(), "two": AnyWidth(), "wide": TeachersWidth()}
    terms = {name: Term(loss, 1.0, "features", cells=cells) for name, loss in losses.items()}
    # The student's map is finer, so that it is resampled as well as projected.
    student, teacher = Tiny(6, stride=2), Tiny(9)
    distiller = Distiller(student, Method("m", terms), teacher)
    distiller.dry_pass(batch()[0])
    return distiller.eval(), losses


@pytest.mark.parametrize("cells", ["declared", "released"])
def test_terms_share_a_map_that_is_resampled_the_same_way(cells) -> None:
    distiller, losses = several(cells)
    together = distiller(*batch())
    (student, teacher), (same, too) = losses["one"].seen, losses["two"].seen
    assert student is same and teacher is too
    # What a term projects is its own.
    wide = losses["wide"].seen
    assert wide[0].shape[1] == 9 and wide[1] is teacher
    for name, value in together.items():
        assert torch.equal(value, distiller(*batch(), only=[name])[name])
    (again, _) = losses["one"].seen
    assert again is not student and torch.equal(again, student)


@pytest.mark.parametrize("cells", ["declared", "released"])
def test_shared_maps_pass_the_sum_of_the_terms_gradients(cells) -> None:
    distiller, _ = several(cells)
    weights = list(distiller.student.parameters())

    def gradients(values: dict[str, Tensor]) -> list[Tensor | None]:
        return torch.autograd.grad(sum(values.values()), weights, allow_unused=True)

    alone = [gradients(distiller(*batch(), only=[name])) for name in ("one", "two", "wide")]
    for found, *parts in zip(gradients(distiller(*batch())), *alone, strict=True):
        assert (found is None) == (parts[0] is None)
        if found is not None:
            torch.testing.assert_close(found, sum(parts))


def test_nothing_that_is_shared_outlives_the_step() -> None:
    distiller, losses = several()
    values = distiller(*batch())
    held = [weakref.ref(tensor) for tensor in losses["one"].seen]
    for loss in losses.values():
        del loss.seen
    distiller(*batch())
    for loss in losses.values():
        del loss.seen
    del values
    gc.collect()
    assert all(reference() is None for reference in held)


@pytest.mark.parametrize(("preset", "calls"), [("default", 2), ("paper", 2)])
def test_a_step_of_idd_resamples_each_tap_once(preset, calls, monkeypatch) -> None:
    torch.manual_seed(0)
    student, teacher = Tiny(4, stride=8), Tiny(6)
    for network in (student, teacher):
        network.taps["features_released"] = "body"
    distiller = Distiller(student, build_method("idd", 3, preset), teacher)
    images, labels = batch((64, 64))
    distiller.dry_pass(images)
    distiller.prepare([images] * 4)
    count = 0

    def counted(function):
        def call(x, *arguments, **options):
            nonlocal count
            made = function(x, *arguments, **options)
            count += made is not x
            return made

        return call

    monkeypatch.setattr(alignments, "resample", counted(alignments.resample))
    monkeypatch.setattr(alignments, "_resized", counted(alignments._resized))
    distiller(images, labels)
    assert count == calls


def test_once_keeps_functions_tensors_and_arguments_apart() -> None:
    once = Once()
    x = torch.arange(3.0)
    assert once(torch.add, x, 1) is once(torch.add, x, 1)
    assert torch.equal(once(torch.add, x, 2), x + 2)
    assert torch.equal(once(torch.mul, x, 2), x * 2)
    # Tensors of one address, one after the other: a name is not given to two of them.
    for value in range(20):
        assert once(torch.add, torch.full((2,), float(value)), 1)[0] == value + 1


def test_halves_are_raised_once_for_all_terms() -> None:
    distiller, losses = several()
    with torch.autocast("cpu", torch.bfloat16):
        distiller(*batch())
    (student, teacher), (same, too) = losses["one"].seen, losses["two"].seen
    assert student is same and teacher is too
    assert student.dtype == teacher.dtype == torch.float32
