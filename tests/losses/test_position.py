import logging

import pytest
import torch
from torch.nn import functional as F

from segdistill.losses import PositionInformation, position
from segdistill.losses.position import mask_difference, standardised
from segdistill.losses.readout import convolved, fit_readout, ramps, score
from segdistill.losses.ridge import RidgeMap, ridge_map, second_moments

STEPS = 80


def features(seed, c=6, x=1.0, y=1.0, b=2, h=8, w=10, noise=0.3):
    """Noise, and in the first two channels the column and row, as strongly as asked."""
    generator = torch.Generator().manual_seed(seed)
    made = noise * torch.randn(b, c, h, w, generator=generator)
    made[:, 0] += x * torch.linspace(-1, 1, w)
    made[:, 1] += y * torch.linspace(-1, 1, h)[:, None]
    return made


def batches(count=8, student=None, teacher=None):
    student = {"c": 4, "x": 0.0, "y": 0.0, **(student or {})}
    teacher = {"c": 6, **(teacher or {})}
    return [(features(i, **student), features(100 + i, **teacher)) for i in range(count)]


def ready(pairs, **options):
    loss = PositionInformation(**{"steps": STEPS, **options})
    loss.build(pairs[0][0].shape, pairs[0][1].shape)
    return loss, loss.prepare(pairs)


@pytest.fixture(scope="module", autouse=True)
def fitted_in_all_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(position, "fit_readout", fit_readout)
        yield


@pytest.fixture(scope="module")
def planted():
    return batches()


@pytest.fixture(scope="module")
def faint():
    """A student that encodes position, but weakly."""
    return batches(student={"x": 0.3, "y": 0.3})


def test_ramps_of_a_small_map_worked_by_hand() -> None:
    # 4 rows: inner rows 1, 2 of 0..3. 5 columns: inner columns 1, 2, 3 of 0..4.
    both = ramps(torch.zeros(1, 1, 4, 5))[0]
    torch.testing.assert_close(both[0], torch.tensor([[0.25, 0.5, 0.75]] * 2))
    torch.testing.assert_close(both[1], torch.tensor([[1 / 3] * 3, [2 / 3] * 3]))


def test_difference_of_masks_worked_by_hand() -> None:
    # All 1/2 against the ramps above: x (1/16 + 0 + 1/16) / 3 = 1/24; y (1/36 + 1/36) / 2 = 1/36.
    masks, truth = torch.full((2, 2, 2, 3), 0.5), ramps(torch.zeros(1, 1, 4, 5))
    both = mask_difference(masks, truth, torch.ones(2))
    assert both.item() == pytest.approx((1 / 24 + 1 / 36) / 2)
    only_y = mask_difference(masks, truth, torch.tensor([0.0, 1.0]))
    assert only_y.item() == pytest.approx(1 / 36 / 2)


def test_difference_equals_squared_distances_of_columns_and_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.rand(2, 2, 3, 5, generator=generator) for _ in range(2))
    total = 0.0
    for b in range(2):
        for i in range(5):
            total += sum(
                (a - c) ** 2 for a, c in zip(ours[b, 0, :, i], theirs[b, 0, :, i], strict=True)
            )
        for i in range(3):
            total += sum((a - c) ** 2 for a, c in zip(ours[b, 1, i], theirs[b, 1, i], strict=True))
    # Over 2 images, 2 masks, 15 cells.
    expected = total / (2 * 2 * 15)
    torch.testing.assert_close(mask_difference(ours, theirs, torch.ones(2)), expected)


def test_prepare_measures_what_the_teacher_has_and_the_student_lacks(planted, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        loss, figures = ready(planted)
    assert set(figures) == {
        *(
            f"{what}_{axis}"
            for what in ("r2_teacher", "r2_student", "headroom", "taught")
            for axis in "xy"
        ),
        "readout_mse",
        "chance_mse",
    }
    assert min(figures["r2_teacher_x"], figures["r2_teacher_y"]) > 0.8
    assert max(figures["r2_student_x"], figures["r2_student_y"]) < 0.2
    for axis in "xy":
        gap = figures[f"r2_teacher_{axis}"] - figures[f"r2_student_{axis}"]
        assert figures[f"headroom_{axis}"] == pytest.approx(gap)
    # Ten columns: mean of (k/9 - 1/2)² over k = 1..8 = 7/108; eight rows: over k/7, k = 1..6: 5/84.
    assert figures["chance_mse"] == pytest.approx((7 / 108 + 5 / 84) / 2)
    assert figures["readout_mse"] < figures["chance_mse"] / 4
    assert loss.axes.tolist() == [1, 1]
    assert not caplog.records


def test_r2_agrees_with_loops_on_the_held_out_images(planted) -> None:
    loss, figures = ready(planted)
    wrong = spread = 0.0
    for _, teacher in planted[-2:]:
        mask, _ = loss.masks(teacher, "teacher")
        for b in range(len(mask)):
            for row in range(mask.shape[1]):
                for column in range(mask.shape[2]):
                    truth = (column + 1) / 9
                    wrong += (mask[b, row, column].item() - truth) ** 2
                    spread += (truth - 0.5) ** 2
    assert figures["r2_teacher_x"] == pytest.approx(1 - wrong / spread, abs=1e-5)


def test_an_axis_that_the_teacher_does_not_know_is_switched_off(caplog) -> None:
    pairs = batches(teacher={"x": 0.0})
    with caplog.at_level(logging.WARNING):
        loss, figures = ready(pairs)
    assert figures["r2_teacher_x"] < 0.2
    assert loss.axes.tolist() == [0, 1]
    assert "the teacher's features do not encode x" in caplog.text
    assert "this axis is disabled" in caplog.text


def test_an_axis_that_the_student_knows_as_well_is_switched_off(caplog) -> None:
    pairs = batches(student={"c": 6, "x": 1.0, "y": 0.0})
    with caplog.at_level(logging.WARNING):
        loss, figures = ready(pairs)
    assert figures["headroom_x"] < 0.05 < figures["headroom_y"]
    assert (figures["taught_x"], figures["taught_y"]) == (0, 1)
    assert loss.axes.tolist() == [0, 1]
    (line,) = caplog.messages
    assert line.startswith("position: nothing to teach in x: on held-out images R² is 0.85 for the")
    assert line.endswith("this axis is disabled. switch_off: never keeps it")


NOTHING = {"unknown": {"teacher": {"x": 0.0, "y": 0.0}}, "known": {"student": {"x": 1.0, "y": 1.0}}}


@pytest.mark.parametrize(
    ("rule", "form", "taught"),
    [
        (None, "default", {"unknown": 0, "known": 0}),
        ("headroom", "paper", {"unknown": 0, "known": 0}),
        (None, "paper", {"unknown": 0, "known": 1}),
        ("unreadable", "default", {"unknown": 0, "known": 1}),
        ("never", "default", {"unknown": 1, "known": 1}),
    ],
)
def test_a_term_with_nothing_to_teach_is_switched_off_by_a_rule(rule, form, taught, caplog) -> None:
    for case, on in taught.items():
        pairs = batches(count=4, **NOTHING[case])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            loss, figures = ready(pairs, form=form, switch_off=rule)
        assert [figures["taught_x"], figures["taught_y"]] == loss.axes.tolist() == [on, on]
        assert ("this term is switched off" in caplog.text) == (not on)
        assert caplog.text.count("is kept (switch_off: ") == 2 * on
        student = pairs[0][0].clone().requires_grad_()
        loss.train()(student, pairs[0][1]).backward()
        assert bool(student.grad.abs().sum() > 0) == bool(on)


def test_a_term_that_is_switched_off_stays_so_when_it_resumes(planted) -> None:
    off, _ = ready(batches(count=4, **NOTHING["known"]))
    pair = planted[0]
    fresh, _ = ready(planted)
    assert fresh.eval()(*pair) > 0
    for source, on in ((off, False), (ready(planted)[0], True)):
        fresh.load_state_dict(source.state_dict())
        assert bool(fresh.eval()(*pair) > 0) == on
    with pytest.raises(ValueError, match=r"switch_off is 'no'; expected headroom, unreadable or"):
        PositionInformation(switch_off="no")


def test_readout_reads_features_of_any_scale_and_offset_alike(planted) -> None:
    plain = [teacher for _, teacher in planted]
    moved = [teacher * 300 - 50 for teacher in plain]
    r2 = [score(fit_readout(each, STEPS, 0), each)[0] for each in (plain, moved)]
    torch.testing.assert_close(torch.tensor(r2[0]), torch.tensor(r2[1]), atol=1e-3, rtol=0)


def test_prepare_repeats_itself_and_leaves_torchs_generator_alone(planted) -> None:
    before = torch.get_rng_state()
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        kept = torch.get_rng_state()
        states.append(ready(planted, steps=5)[0].state_dict())
        assert torch.equal(torch.get_rng_state(), kept)
        ready(planted, form="paper", steps=2)
        assert torch.equal(torch.get_rng_state(), kept)
    torch.set_rng_state(before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_fitted_map_is_the_least_squares_of_features() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    teacher = torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.float64)
    # Every cell an equation, the ridge as further rows: an ordinary least-squares problem.
    s = torch.stack([student[b, :, y, x] for b in range(2) for y in range(4) for x in range(5)])
    t = torch.stack([teacher[b, :, y, x] for b in range(2) for y in range(4) for x in range(5)])
    level = 0.01 * (s**2).mean() * 40
    rows = torch.cat([s, level.sqrt() * torch.eye(3, dtype=torch.float64)])
    targets = torch.cat([t, torch.zeros(3, 6, dtype=torch.float64)])
    expected = torch.linalg.lstsq(rows, targets).solution.T
    torch.testing.assert_close(ridge_map(*second_moments(student, teacher), 0.01), expected)


def test_dead_student_features_give_a_map_of_zeros() -> None:
    assert (ridge_map(torch.zeros(3, 3), torch.zeros(4, 3), 1e-3) == 0).all()


def test_each_step_uses_the_map_of_before_and_then_moves_it(planted) -> None:
    loss, _ = ready(planted)
    student, teacher = features(50, c=4) * 3, features(51)
    adapter = loss.adapter
    assert isinstance(adapter, RidgeMap)
    before = [adapter.student_moment.clone(), adapter.cross_moment.clone()]
    still = loss.eval()(student, teacher)
    assert torch.equal(adapter.student_moment, before[0])
    moving = loss.train()(student, teacher)
    assert torch.equal(still, moving)
    for moment, old, new in zip(
        (adapter.student_moment, adapter.cross_moment),
        before,
        second_moments(student, teacher),
        strict=True,
    ):
        torch.testing.assert_close(moment, 0.95 * old + 0.05 * new)


def absorbed(loss, pairs):
    """The loss after and before all that it may train itself was trained on fixed features."""
    loss.train()
    trainable = [p for p in loss.parameters() if p.requires_grad]
    first = sum(loss(*pair).item() for pair in pairs)
    optimiser = torch.optim.Adam([*trainable, torch.zeros(1, requires_grad=True)], lr=0.02)
    for step in range(60):
        optimiser.zero_grad()
        student, teacher = pairs[step % 8]
        loss(student.clone().requires_grad_(), teacher).backward()
        optimiser.step()
    return sum(loss(*pair).item() for pair in pairs) / first


def test_the_fitted_map_cannot_absorb_the_term_and_a_free_one_does(faint) -> None:
    fitted, _ = ready(faint, steps=40)
    assert not any(p.requires_grad for p in fitted.parameters())
    assert absorbed(fitted, faint) > 0.9
    free, _ = ready(faint, form="paper", steps=40)
    assert [name for name, p in free.named_parameters() if p.requires_grad] == ["adapter.weight"]
    assert absorbed(free, faint) < 0.7


@pytest.mark.parametrize("options", [{}, {"form": "paper"}])
def test_no_gradient_reaches_the_readout_or_the_fitted_map(planted, options) -> None:
    loss, _ = ready(planted, **options)
    student = planted[0][0].clone().requires_grad_()
    loss.train()(student, planted[0][1]).backward()
    assert student.grad.abs().sum() > 0
    assert all(p.grad is None for p in loss.readout.parameters())


def test_descending_the_gradient_moves_the_students_masks_towards_the_teachers(faint) -> None:
    loss, _ = ready(faint)
    loss.eval()
    student, teacher = faint[0][0].clone().requires_grad_(), faint[0][1]
    values = []
    for _ in range(30):
        value = loss(student, teacher)
        values.append(value.item())
        student.data -= 200 * torch.autograd.grad(value, student)[0]
    assert values[-1] < values[0] / 2


def test_readout_stays_in_eval_when_the_loss_trains(planted) -> None:
    loss, _ = ready(planted)
    kept = {name: value.clone() for name, value in loss.readout.state_dict().items()}
    loss.train()(*planted[0])
    assert loss.training
    assert not loss.readout.training
    assert all(torch.equal(value, kept[name]) for name, value in loss.readout.state_dict().items())


def test_state_restores_the_loss_without_preparation(planted) -> None:
    for options in ({}, {"form": "paper"}):
        loss, _ = ready(planted, steps=5, **options)
        loss.train()(*planted[0])
        other = PositionInformation(seed=9, **options)
        other.build(planted[0][0].shape, planted[0][1].shape)
        other.load_state_dict(loss.state_dict())
        assert torch.equal(other.eval()(*planted[1]), loss.eval()(*planted[1]))


def test_half_precision_features_can_be_prepared(planted) -> None:
    halves = [(student.bfloat16(), teacher.half()) for student, teacher in planted]
    _, figures = ready(halves)
    assert figures["r2_teacher_x"] > 0.8


def test_one_batch_is_split_by_images_and_one_image_is_warned_of(caplog) -> None:
    student, teacher = features(0, b=8, c=4, x=0, y=0), features(1, b=8)
    with caplog.at_level(logging.WARNING):
        _, figures = ready([(student, teacher)])
        assert figures["r2_teacher_x"] > 0.7
        assert "only one image" not in caplog.text
        ready([(student[:1], teacher[:1])])
    assert "only one image" in caplog.text


def test_masks_lie_between_zero_and_one_at_the_inner_cells(planted) -> None:
    loss, _ = ready(planted)
    for side, tensor in zip(("student", "teacher"), planted[0], strict=True):
        for mask in loss.masks(tensor, side):
            assert mask.shape == (2, 6, 8)
            assert mask.min() >= 0
            assert mask.max() <= 1
    x, y = loss.masks(planted[0][1], "teacher")
    assert (x[..., -1] > x[..., 0]).all()
    assert (y[:, -1] > y[:, 0]).all()
    with pytest.raises(ValueError, match="position: side is 'both'; expected student or teacher"):
        loss.masks(planted[0][0], "both")


def test_aligned_logits_ignore_shift_and_scale() -> None:
    pairs = batches(student={"c": 6})
    loss, _ = ready(pairs, align="logits")
    student, teacher = pairs[0]
    moved = 4 * student + torch.randn(2, 1, 8, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(moved, teacher), loss(student, teacher), rtol=1e-3, atol=1e-6)
    cell = standardised(student)[0, :, 3, 4]
    assert cell.mean().item() == pytest.approx(0, abs=1e-6)
    assert cell.std(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_ramp_needs_no_teacher_and_trains_its_readout(planted) -> None:
    loss = PositionInformation(target="ramp")
    loss.build(planted[0][1].shape, None)
    assert loss.prepare([(teacher, None) for _, teacher in planted]) == {}
    optimiser = torch.optim.Adam(loss.train().parameters(), lr=0.02)
    values = []
    for step in range(60):
        value = loss(planted[step % 8][1])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < values[0] / 2
    x, _ = loss.eval().masks(planted[0][1], "student")
    assert x.shape == (2, 6, 8)


def test_ramp_equals_the_difference_to_the_coordinates(planted) -> None:
    loss = PositionInformation(target="ramp")
    loss.build(planted[0][0].shape, None)
    loss.eval()
    x, y = loss.masks(planted[0][0], "student")
    columns, rows = torch.arange(1, 9) / 9, torch.arange(1, 7) / 7
    expected = ((x - columns) ** 2).mean() / 2 + ((y - rows[:, None]) ** 2).mean() / 2
    torch.testing.assert_close(loss(planted[0][0]), expected)


def slow_target(masks, target):
    """The teacher's masks, `b 2 h w`, as each placebo changes them, by loops."""
    count = len(masks)
    if target == "shuffled":
        return torch.stack([masks[count - 1 if b == 0 else b - 1] for b in range(count)])
    return torch.stack([sum(masks) / count for _ in range(count)])


@pytest.mark.parametrize("target", ["averaged", "shuffled"])
@pytest.mark.parametrize("options", [{}, {"form": "paper"}])
def test_placebos_keep_readout_and_map_and_change_the_target(planted, target, options) -> None:
    placebo, figures = ready(planted, target=target, **options)
    real, same_figures = ready(planted, **options)
    assert figures == same_figures
    assert all(torch.equal(v, real.state_dict()[k]) for k, v in placebo.state_dict().items())
    student, teacher = features(60, b=3, c=4).requires_grad_(), features(61, b=3).requires_grad_()
    ours, theirs = (
        torch.stack(real.masks(x, side), 1)
        for x, side in ((student, "student"), (teacher, "teacher"))
    )
    expected = mask_difference(ours, slow_target(theirs, target), real.axes)
    value = placebo.eval()(student, teacher)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    assert abs(value - real.eval()(student, teacher)) > 1e-6
    value.backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert torch.equal(placebo.masks(teacher, "teacher")[0], real.masks(teacher, "teacher")[0])


def test_placebos_say_what_they_take_from_the_batch_and_refuse_one_image(planted) -> None:
    loss, _ = ready(planted, steps=2, target="shuffled", switch_off="never")
    assert loss.statistic == "moments of the map and masks of the batch"
    assert PositionInformation(form="paper", target="averaged").statistic == "masks of the batch"
    assert PositionInformation().least_images == 1
    student, teacher = planted[0]
    with pytest.raises(
        ValueError, match=r"target is shuffled and the batch holds 1 image; expected 2 or more"
    ):
        loss(student[:1], teacher[:1])
    with pytest.raises(
        ValueError, match="target is 'mean'; expected teacher, averaged, shuffled or ramp"
    ):
        PositionInformation(target="mean")


def test_misuse_is_refused_with_the_remedy(planted) -> None:
    student, teacher = planted[0]
    loss = PositionInformation()
    with pytest.raises(ValueError, match="there is no readout yet; call build"):
        loss(student, teacher)
    with pytest.raises(ValueError, match="the teacher is missing; expected one"):
        loss.build(student.shape, None)
    with pytest.raises(
        ValueError, match=r"has 4 channels; expected the teacher's 6\. Tap the logits"
    ):
        PositionInformation(align="logits").build(student.shape, teacher.shape)
    loss.build(student.shape, teacher.shape)
    with pytest.raises(ValueError, match="not fitted yet; call prepare"):
        loss(student, teacher)
    with pytest.raises(
        ValueError, match=r"expected the teacher's tensor\. Pass it, or set target=ramp"
    ):
        loss(student)
    with pytest.raises(ValueError, match="batches hold no teacher features"):
        loss.prepare([])
    with pytest.raises(
        ValueError, match=r"maps are 3x10; expected at least 4x4\. Use larger crops"
    ):
        loss.prepare([(student[:, :, :3], teacher[:, :, :3])])


def seen_in_two_steps(loss, student):
    """What the readout sees of a student as the docs have it: a 1x1 map, then a 3x3 convolution."""
    readout = loss.readout.double()
    adapter = loss.adapter
    if isinstance(adapter, RidgeMap):
        weight = ridge_map(adapter.student_moment, adapter.cross_moment, adapter.ridge)
    else:
        weight = adapter.weight.double()[:, :, 0, 0]
    mapped = torch.einsum("ts,bshw->bthw", weight, student.double())
    return readout.norm(F.conv2d(mapped, readout.conv.weight)).sigmoid()


@pytest.mark.parametrize("options", [{}, {"form": "paper"}])
def test_the_folded_kernel_sees_what_map_and_readout_see_in_turn(planted, options) -> None:
    loss, _ = ready(planted, **options)
    student, teacher = features(70, c=4).requires_grad_(), planted[0][1]
    found = torch.stack(loss.masks(student, "student"), 1)
    trained = [student, *(p for p in loss.parameters() if p.requires_grad)]
    value = loss.eval()(student, teacher)
    grads = torch.autograd.grad(value, trained)
    target = torch.stack(loss.masks(teacher, "teacher"), 1).double()
    expected = seen_in_two_steps(loss, student)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    same = mask_difference(expected, target, loss.axes)
    torch.testing.assert_close(value.double(), same, rtol=1e-4, atol=0)
    for grad, exact in zip(grads, torch.autograd.grad(same, trained), strict=True):
        torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (1, 5, 4, 9), (3, 1, 7, 5)])
@pytest.mark.parametrize("laid_out", [torch.contiguous_format, torch.channels_last])
def test_shifted_sums_are_a_3x3_convolution(shape, laid_out) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(shape, generator=generator, dtype=torch.float64)
    maps = maps.contiguous(memory_format=laid_out).requires_grad_()
    kernel = torch.randn(2, shape[1], 3, 3, generator=generator, dtype=torch.float64)
    kernel.requires_grad_()
    found, expected = convolved(maps, kernel), F.conv2d(maps, kernel)
    torch.testing.assert_close(found, expected)
    grads = (torch.autograd.grad(each.square().sum(), (maps, kernel)) for each in (found, expected))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
