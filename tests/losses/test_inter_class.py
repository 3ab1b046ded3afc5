import logging
import math

import pytest
import torch

from segdistill.losses import InterClassDistance
from segdistill.losses.inter_class import next_class, token_distances


def drawn(b=3, k=5, size=8, student=6, teacher=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = [
        torch.randn(b, c, size, size, generator=generator, dtype=torch.float64)
        for c in (student, teacher)
    ]
    labels = torch.randint(0, k, (b, size, size), generator=generator)
    labels[0, 0] = 255
    labels[1, :, :] = labels[1].clamp_max(1)
    return *features, labels


def slow_edges(features, labels, min_pixels):
    """For each image {(class, class): (distance, pixels, pixels)}, by loops from the equation."""
    images = []
    for b in range(features.shape[0]):
        pixels = {}
        for y in range(features.shape[2]):
            for x in range(features.shape[3]):
                if labels[b, y, x] != 255:
                    pixels.setdefault(int(labels[b, y, x]), []).append(features[b, :, y, x])
        tokens = {c: (sum(p) / len(p), len(p)) for c, p in pixels.items() if len(p) >= min_pixels}
        images.append(
            {
                (i, j): (math.dist(tokens[i][0], tokens[j][0]), tokens[i][1], tokens[j][1])
                for i in tokens
                for j in tokens
                if i < j
            }
        )
    return images


def slow_permuted(images):
    """The edges of each image, each class taking those of the next one by 101 · id modulo 257."""
    changed = []
    for image in images:
        shown = sorted({c for pair in image for c in pair}, key=lambda c: 101 * c % 257)
        after = dict(zip(shown, shown[1:] + shown[:1], strict=True))
        moved = {pair: tuple(sorted((after[pair[0]], after[pair[1]]))) for pair in image}
        assert len(shown) < 3 or all(pair != other for pair, other in moved.items())
        assert sorted(moved.values()) == sorted(image)
        changed.append({pair: image[other] for pair, other in moved.items()})
    return changed


def slow_equal(images):
    edges = [edge[0] for image in images for edge in image.values()]
    mean = sum(edges) / len(edges)
    return [{pair: (mean, *rest) for pair, (_, *rest) in image.items()} for image in images]


TARGETS = {"teacher": list, "permuted": slow_permuted, "equal": slow_equal}


def slow_loss(student, teacher, labels, *, relative, root, min_pixels, target="teacher"):
    ours, theirs = (slow_edges(f, labels, min_pixels) for f in (student, teacher))
    theirs = TARGETS[target](theirs)
    scale = []
    for images in (ours, theirs):
        edges = [edge[0] for image in images for edge in image.values()]
        scale.append(sum(edges) / len(edges) if relative else 1.0)
    per_image = []
    for mine, other in zip(ours, theirs, strict=True):
        total = weights = 0.0
        for pair, (distance, n, m) in mine.items():
            weight = math.sqrt(n * m) if root else 1.0
            total += weight * (distance / scale[0] - other[pair][0] / scale[1]) ** 2
            weights += weight
        if weights:
            per_image.append(total / weights)
    return sum(per_image) / len(per_image)


def test_default_agrees_with_loops() -> None:
    student, teacher, labels = drawn()
    expected = slow_loss(student, teacher, labels, relative=True, root=True, min_pixels=4)
    torch.testing.assert_close(InterClassDistance()(student, teacher, labels).item(), expected)


def test_paper_agrees_with_loops() -> None:
    student, teacher, labels = drawn()
    expected = slow_loss(student, teacher, labels, relative=False, root=False, min_pixels=1)
    value = InterClassDistance(form="paper")(student, teacher, labels)
    torch.testing.assert_close(value.item(), expected)


@pytest.mark.parametrize("target", ["permuted", "equal"])
@pytest.mark.parametrize("form", ["default", "paper"])
def test_placebos_agree_with_loops(form, target) -> None:
    student, teacher, labels = drawn(k=7, size=9)
    labels[2] = labels[2].clamp_min(3)  # other classes than in the first image
    value = InterClassDistance(form=form, target=target)(student, teacher, labels)
    default = form == "default"
    settings = {"relative": default, "root": default, "min_pixels": 4 if default else 1}
    expected = slow_loss(student, teacher, labels, target=target, **settings)
    torch.testing.assert_close(value.item(), expected)
    assert abs(expected - slow_loss(student, teacher, labels, **settings)) > 1e-4


def test_classes_that_are_shown_change_places_in_a_fixed_order() -> None:
    # 101 · id modulo 257: id 0 -> 0, 1 -> 101, 2 -> 202, 3 -> 46, so the order is 0, 3, 1, 2.
    shown = torch.tensor([[True] * 4, [False, True, True, True], [True, False, True, False]])
    after = next_class(shown, torch.arange(4))
    assert after[0].tolist() == [3, 2, 0, 1]
    assert after[1, 1:].tolist() == [2, 3, 1]
    assert after[2, [0, 2]].tolist() == [2, 0]


def test_the_only_edge_of_two_classes_stays_the_teachers() -> None:
    student, teacher, labels = drawn(k=2)
    value = InterClassDistance(target="permuted")(student, teacher, labels)
    torch.testing.assert_close(value, InterClassDistance()(student, teacher, labels))


def test_equal_edges_need_no_teacher_where_edges_are_relative() -> None:
    student, teacher, labels = drawn()
    loss = InterClassDistance(target="equal")
    torch.testing.assert_close(
        loss(student, teacher, labels), loss(student, teacher.square(), labels)
    )
    # Tokens 0, 3, 7: edges 3, 7, 4 over their mean 14/3, less 1: -5/14, 7/14, -2/14; 78/588.
    few = InterClassDistance(target="equal", edge_weight="uniform", min_pixels=1)
    value = few(line(0, 3, 7), line(0, 0, 9), torch.tensor([[[0, 1, 2]]]))
    assert value.item() == pytest.approx(78 / 588)


def test_equal_edges_leave_the_diagonal_of_ordered_pairs_at_zero() -> None:
    student, teacher, labels = drawn()
    labels[1] = labels[0]  # as many classes in each image
    once, both = (
        InterClassDistance(form="paper", target="equal", ordered=ordered)(student, teacher, labels)
        for ordered in (False, True)
    )
    torch.testing.assert_close(both, once * 4 / 5)


@pytest.mark.parametrize("target", ["permuted", "equal"])
def test_placebos_teach_the_student_only(target) -> None:
    student, teacher, labels = drawn()
    student.requires_grad_(), teacher.requires_grad_()
    InterClassDistance(target=target)(student, teacher, labels).backward()
    assert student.grad.abs().max() > 1e-4
    assert teacher.grad is None


def test_each_option_overrides_its_form() -> None:
    student, teacher, labels = drawn()
    value = InterClassDistance(form="paper", edge_weight="sqrt", min_pixels=12)
    expected = slow_loss(student, teacher, labels, relative=False, root=True, min_pixels=12)
    torch.testing.assert_close(value(student, teacher, labels).item(), expected)
    value = InterClassDistance(distance="euclidean")(student, teacher, labels)
    expected = slow_loss(student, teacher, labels, relative=False, root=True, min_pixels=4)
    torch.testing.assert_close(value.item(), expected)


def line(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def test_values_worked_by_hand() -> None:
    # Tokens on a line. Student 0, 3, 7: edges 3, 7, 4. Teacher 0, 4, 4: edges 4, 4, 0.
    # paper: ((3-4)² + (7-4)² + (4-0)²) / 3 = 26 / 3.
    labels = torch.tensor([[[0, 1, 2, 2, 2, 2]]])
    student, teacher = line(0, 3, 7, 7, 7, 7), line(0, 4, 4, 4, 4, 4)
    paper = InterClassDistance(form="paper")(student, teacher, labels)
    assert paper.item() == pytest.approx(26 / 3)
    # default at min_pixels 1: mean edges 14/3 and 8/3; relative edges 9/14, 21/14, 12/14 and
    # 3/2, 3/2, 0; squared differences 36/49, 0, 36/49; weights √(1·1), √(1·4), √(1·4) = 1, 2, 2:
    # (1 · 36/49 + 2 · 0 + 2 · 36/49) / 5 = 108 / 245.
    default = InterClassDistance(min_pixels=1)(student, teacher, labels)
    assert default.item() == pytest.approx(108 / 245)


def test_ordered_pairs_scale_the_uniform_value_by_k_minus_one_over_k() -> None:
    labels = torch.tensor([[[0, 1, 2]]])
    student, teacher = line(0, 3, 7), line(0, 4, 4)
    ordered = InterClassDistance(form="paper", ordered=True)(student, teacher, labels)
    # 2 · 26 / 9: nine ordered pairs, three of them i = j.
    assert ordered.item() == pytest.approx(52 / 9)


@pytest.mark.parametrize("ordered", [False, True])
def test_images_without_an_edge_do_not_count(ordered) -> None:
    student, teacher, labels = drawn()
    loss = InterClassDistance(form="paper", ordered=ordered)
    alone = loss(student[:2], teacher[:2], labels[:2])
    labels[2] = 4
    torch.testing.assert_close(loss(student, teacher, labels), alone)


def test_absent_classes_and_their_ids_do_not_matter() -> None:
    student, teacher, labels = drawn()
    renamed = torch.where(labels == 255, 255, 149 - labels * 20)
    torch.testing.assert_close(
        InterClassDistance()(student, teacher, labels),
        InterClassDistance()(student, teacher, renamed),
    )


def test_two_classes_give_a_gradient() -> None:
    student, teacher, labels = drawn(k=2)
    student.requires_grad_()
    InterClassDistance()(student, teacher, labels).backward()
    assert student.grad.abs().max() > 1e-4


def test_scaling_the_students_features_changes_nothing() -> None:
    student, teacher, labels = drawn()
    loss = InterClassDistance()
    torch.testing.assert_close(
        loss(3 * student, teacher, labels), loss(student, teacher, labels), rtol=1e-12, atol=0
    )
    paper = InterClassDistance(form="paper")
    assert paper(3 * student, teacher, labels) != paper(student, teacher, labels)


@pytest.mark.parametrize("k", [2, 5])
def test_gradient_does_not_change_the_scale_of_the_features(k) -> None:
    # Euler: a value that does not depend on scale has Σ f · dL/df = 0.
    student, teacher, labels = drawn(k=k)
    student.requires_grad_()
    InterClassDistance()(student, teacher, labels).backward()
    along = (student * student.grad).sum().abs()
    assert along < 1e-12 * (student * student.grad).abs().sum().clamp_min(1)


@pytest.mark.parametrize("form", ["default", "paper"])
def test_coinciding_tokens_have_a_finite_gradient(form) -> None:
    _, teacher, labels = drawn()
    student = torch.ones(3, 6, 8, 8, dtype=torch.float64, requires_grad=True)
    value = InterClassDistance(form=form)(student, teacher, labels)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("form", ["default", "paper"])
def test_one_class_is_a_zero_with_a_gradient_of_zero(form) -> None:
    student, teacher, labels = drawn()
    student.requires_grad_()
    value = InterClassDistance(form=form)(student, teacher, torch.full_like(labels, 3))
    value.backward()
    assert value.item() == 0
    assert (student.grad == 0).all()


def test_tokens_below_the_least_number_of_pixels_are_left_out() -> None:
    labels = torch.zeros(1, 1, 9, dtype=torch.int64)
    labels[..., 5:] = 1
    student, teacher = line(*range(9)), line(*(x**2 for x in range(9)))
    with_small = labels.clone()
    with_small[..., 0] = 2
    loss = InterClassDistance(distance="euclidean", edge_weight="uniform")
    before = labels.clone()
    before[..., 0] = 255
    torch.testing.assert_close(loss(student, teacher, with_small), loss(student, teacher, before))


def test_grids_of_the_two_networks_may_differ() -> None:
    student, teacher, labels = drawn(size=8)
    fine = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    wide = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(
        InterClassDistance(min_pixels=1)(student, wide, fine),
        InterClassDistance(min_pixels=1)(student, teacher, labels),
    )


def test_close_tokens_far_from_the_origin_keep_their_distances() -> None:
    # 40 tokens of norm 57 that lie 0.16 apart: by inner products float32 would be percents off.
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 40, 64, generator=generator, dtype=torch.float64) * 0.014 + 7.1
    exact = torch.tensor([[math.dist(a, b) for b in tokens[0]] for a in tokens[0]])
    torch.testing.assert_close(token_distances(tokens.float())[0], exact, rtol=1e-4, atol=1e-6)


def spread_out(case, width, count=40):
    """Tokens in float32, some of them equal; what `case` says of where they lie."""
    generator = torch.Generator().manual_seed(width)
    tokens = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    if case == "far from the origin":
        tokens = tokens + 1e4
    if case == "far from the origin, others absent":
        tokens = tokens + 1e4
        tokens[:, ::3] = 0
    if case == "close":
        tokens = tokens * 1e-3 + 7.1
    if case == "close in pairs":
        tokens[:, 1::2] = tokens[:, ::2] + 1e-3 * tokens[:, 1::2]
    if case == "tiny":
        tokens = tokens * 1e-20
    tokens[:, [7, -1]] = tokens[:, :1].clone()
    return tokens.float()


def exact_distances(tokens):
    apart = (tokens[:, :, None] - tokens[:, None]).square().sum(3)
    return torch.where(apart > 0, torch.where(apart > 0, apart, 1).sqrt(), 0)


@pytest.mark.parametrize("width", [1, 2, 64, 512, 2048])
@pytest.mark.parametrize(
    "case",
    [
        "plain",
        "far from the origin",
        "far from the origin, others absent",
        "close",
        "close in pairs",
        "tiny",
    ],
)
def test_distances_of_many_tokens_are_exact_to_float32(case, width) -> None:
    tokens = spread_out(case, width)
    single, double = tokens.clone().requires_grad_(), tokens.double().requires_grad_()
    found, exact = token_distances(single), exact_distances(double)
    assert found.dtype == torch.float32
    # Float32's rounding of each distance, or of one across all tokens where by chance two are that close.
    across = float(exact.detach().max())
    close = exact < 1e-4 * across
    torch.testing.assert_close(found[~close].double(), exact[~close], rtol=2e-7, atol=0)
    assert float((found - exact).detach().abs().max()) <= 2**-23 * across
    assert (found[:, [0, 0, 7, 3], [7, 39, 39, 3]] == 0).all()
    assert torch.equal(found, found.mT)
    weight = torch.rand(exact.shape, generator=torch.Generator().manual_seed(0))
    for edges, kind in ((found, weight), (exact, weight.double())):
        (edges * kind).where(~close, 0).sum().backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-5)


def test_many_tokens_that_coincide_have_a_gradient_of_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 1, 512, generator=generator) + 1e4
    for tokens in (one.expand(2, 60, 512).clone(), torch.zeros(2, 60, 512)):
        found = token_distances(tokens.requires_grad_())
        found.sum().backward()
        assert (found == 0).all() and (tokens.grad == 0).all()


def test_tokens_equal_up_to_rounding_have_a_finite_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 1, 512, generator=generator).expand(1, 40, 512).clone()
    tokens[:, ::2] *= 1 + 2**-23
    tokens[:, 5] = -tokens[:, 5]
    found = token_distances(tokens.requires_grad_())
    found.sum().backward()
    assert torch.isfinite(found).all()
    # The sum of unit vectors to 39 others at most.
    assert float(tokens.grad.norm(dim=2).max()) <= 2 * 39 * 1.01


def test_a_token_that_is_not_a_number_is_no_distance_of_zero() -> None:
    tokens = torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(0))
    tokens[0, 3, 2] = math.nan
    assert token_distances(tokens)[0, 3].isnan().all()


def test_few_and_many_tokens_have_the_same_distances() -> None:
    tokens = torch.randn(2, 60, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        token_distances(tokens)[:, :20, :20], token_distances(tokens[:, :20])
    )


def test_many_classes_agree_with_loops() -> None:
    student, teacher, labels = drawn(b=2, k=60, size=24)
    expected = slow_loss(student, teacher, labels, relative=True, root=True, min_pixels=4)
    value = InterClassDistance()(student.float(), teacher.float(), labels)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_two_classes_are_warned_of_when_built(caplog) -> None:
    shape = torch.Size([1, 2, 3, 3])
    with caplog.at_level(logging.WARNING):
        InterClassDistance(num_classes=3).build(shape, shape)
        InterClassDistance(num_classes=2, form="paper").build(shape, shape)
        assert not caplog.records
        InterClassDistance(num_classes=2).build(shape, shape)
    assert "with two classes" in caplog.text
    assert "distance=euclidean" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"distance": "l1"},
            "inter_class: distance is 'l1'; expected relative or euclidean",
        ),
        ({"edge_weight": "n"}, "inter_class: edge_weight is 'n'; expected sqrt or uniform"),
        (
            {"target": "shuffled"},
            "inter_class: target is 'shuffled'; expected teacher, permuted or equal",
        ),
        (
            {"target": "permuted", "num_classes": 2},
            "target is permuted with 2 classes; expected 3 or more.* Use target=equal",
        ),
        ({"min_pixels": 0}, "min_pixels is 0; expected 1 or more"),
    ],
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        InterClassDistance(**options)
