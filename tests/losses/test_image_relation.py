import math

import pytest
import torch
from torch.nn import functional as F

from segdistill.losses import ImageRelation


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(vector):
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def slow_nodes(features, window=(1, 1)):
    """nodes[image][position] as unit vectors, averaged over windows whose last are cut short."""
    b, c, h, w = features.shape
    return [
        [
            unit(
                [
                    features[image, k, y : y + window[0], x : x + window[1]].mean().item()
                    for k in range(c)
                ]
            )
            for y in range(0, h, window[0])
            for x in range(0, w, window[1])
        ]
        for image in range(b)
    ]


def slow_row(node, others, temperature):
    powers = [
        math.exp(sum(a * b for a, b in zip(node, other, strict=True)) / temperature)
        for other in others
    ]
    return [p / sum(powers) for p in powers]


def slow_loss(student, teacher, temperature):
    """Mean over ordered pairs of images and positions of the first, by loops."""
    total, images, positions = 0.0, len(student), len(student[0])
    for i in range(images):
        for j in range(images):
            for m in range(positions):
                q = slow_row(student[i][m], student[j], temperature)
                p = slow_row(teacher[i][m], teacher[j], temperature)
                total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / positions / images**2


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_cirkd_agrees_with_loops_over_pairs_of_images(temperature) -> None:
    student, teacher = drawn(3, 4, 2, 3), drawn(3, 6, 2, 3, seed=1)
    expected = slow_loss(slow_nodes(student), slow_nodes(teacher), temperature)
    value = ImageRelation(temperature, form="cirkd")(student, teacher)
    torch.testing.assert_close(value.item(), expected)


def test_default_agrees_with_loops_over_pooled_nodes() -> None:
    student, teacher = drawn(2, 4, 4, 6), drawn(2, 6, 4, 6, seed=1)
    expected = slow_loss(*(slow_nodes(x, (2, 3)) for x in (student, teacher)), 0.1)
    torch.testing.assert_close(ImageRelation(nodes=2)(student, teacher).item(), expected)


def test_published_value_and_gradient_are_those_of_the_pairs_one_by_one() -> None:
    student, teacher = drawn(3, 4, 3, 4), drawn(3, 7, 3, 4, seed=1)
    results = []
    for reference in (True, False):
        features = student.clone().requires_grad_()
        if reference:
            value = torch.zeros((), dtype=torch.float64)
            for i in range(3):
                for j in range(3):
                    logs = [
                        _cosines(x[i], x[j]).div(0.1).log_softmax(1) for x in (features, teacher)
                    ]
                    value = value + (logs[1].exp() * (logs[1] - logs[0])).sum() / 12 / 9
        else:
            value = ImageRelation(form="cirkd")(features, teacher)
        value.backward()
        results.append((value.detach(), features.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-12)


def _cosines(one, other):
    return F.cosine_similarity(one.flatten(1).T[:, None], other.flatten(1).T[None], dim=2)


@pytest.mark.parametrize("size", [(256, 3), (3, 300)])
def test_cirkd_pools_only_where_both_sides_are_long(size) -> None:
    nodes = ImageRelation(form="cirkd")._nodes(drawn(1, 2, *size))
    assert nodes.shape == (1, 2, size[0] * size[1])


def test_cirkd_pools_windows_of_four_the_last_cut() -> None:
    features = drawn(1, 2, 256, 258)
    nodes = ImageRelation(form="cirkd")._nodes(features).unflatten(2, (64, 65))
    for row, column in [(0, 0), (63, 64), (17, 40)]:
        patch = features[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean((1, 2))
        torch.testing.assert_close(nodes[0, :, row, column], patch / patch.norm())


@pytest.mark.parametrize("form", ["default", "cirkd"])
def test_value_worked_by_hand(form) -> None:
    # One image, two positions. Teacher's at right angles, student's parallel, T = 1/ln 3: the
    # teacher's rows are softmax of (ln 3, 0) = (3/4, 1/4), the student's (1/2, 1/2).
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812, the same in both rows.
    teacher = torch.tensor([[[[2.0, 0.0]], [[0.0, 5.0]]]])
    student = torch.tensor([[[[1.0, 3.0]]]])
    value = ImageRelation(1 / math.log(3), form)(student, teacher).item()
    assert value == pytest.approx(0.130812, abs=1e-6)


@pytest.mark.parametrize("form", ["default", "cirkd"])
def test_neither_order_of_images_nor_lengths_nor_rotation_of_channels_matter(form) -> None:
    student, teacher = drawn(3, 4, 3, 4), drawn(3, 4, 3, 4, seed=1)
    loss = ImageRelation(form=form)
    value = loss(student, teacher)
    torch.testing.assert_close(loss(student.flip(0), teacher.flip(0)), value)
    torch.testing.assert_close(loss(student * drawn(3, 1, 3, 4, seed=2).exp(), teacher), value)
    rotation = torch.linalg.qr(drawn(4, 4, seed=3)).Q
    torch.testing.assert_close(
        loss(torch.einsum("dc,bchw->bdhw", rotation, student), teacher), value
    )


def test_an_image_is_compared_with_the_others_not_with_itself_alone() -> None:
    student, teacher = drawn(2, 4, 3, 4), drawn(2, 4, 3, 4, seed=1)
    # Turning one image's channels changes its relation to the other image only.
    rotation = torch.linalg.qr(drawn(4, 4, seed=3)).Q
    turned = torch.stack([torch.einsum("dc,chw->dhw", rotation, student[0]), student[1]])
    loss = ImageRelation()
    torch.testing.assert_close(loss(turned[:1], teacher[:1]), loss(student[:1], teacher[:1]))
    assert abs(loss(turned, teacher) - loss(student, teacher)) > 1e-3


def test_nodes_bound_the_memory_at_any_resolution() -> None:
    assert ImageRelation()._nodes(drawn(1, 2, 90, 60)).shape == (1, 2, 256)
    assert ImageRelation(nodes=3)._nodes(drawn(1, 2, 2, 60)).shape == (1, 2, 6)


def test_zero_features_have_a_finite_gradient_in_half() -> None:
    student = torch.zeros(2, 3, 4, 4, dtype=torch.float16, requires_grad=True)
    value = ImageRelation()(student, drawn(2, 3, 4, 4).half())
    value.backward()
    assert torch.isfinite(value)
    assert (student.grad == 0).all()
