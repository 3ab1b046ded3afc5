import math

import pytest
import torch

from segdistill.losses import PairwiseKD
from segdistill.losses.cosine import unit_vectors


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def slow_windows(features, window, reduce):
    """Pool windows of (rows, columns), the last cut short: nodes[image][node][channel]."""
    b, c, h, w = features.shape
    nodes = []
    for image in range(b):
        row = []
        for top in range(0, h, window[0]):
            for left in range(0, w, window[1]):
                patch = features[image, :, top : top + window[0], left : left + window[1]]
                row.append([reduce(patch[channel].flatten().tolist()) for channel in range(c)])
        nodes.append(row)
    return nodes


def slow_loss(student_nodes, teacher_nodes):
    total, count = 0.0, 0
    for ours, theirs in zip(student_nodes, teacher_nodes, strict=True):
        for i in range(len(ours)):
            for j in range(len(ours)):
                total += (cosine(theirs[i], theirs[j]) - cosine(ours[i], ours[j])) ** 2
                count += 1
    return total / count


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def mean(values):
    return sum(values) / len(values)


def test_default_agrees_with_loops_over_mean_nodes() -> None:
    # 3 x 3 nodes of 2 x 2 cells; the teacher is wider.
    student, teacher = drawn(2, 3, 6, 6), drawn(2, 5, 6, 6, seed=1)
    expected = slow_loss(*(slow_windows(f, (2, 2), mean) for f in (student, teacher)))
    torch.testing.assert_close(PairwiseKD(nodes=3)(student, teacher).item(), expected)


@pytest.mark.parametrize(("size", "window"), [((6, 6), (3, 3)), ((7, 5), (3, 2))])
def test_skd_agrees_with_loops_over_maximum_nodes(size, window) -> None:
    student, teacher = drawn(2, 3, *size), drawn(2, 5, *size, seed=1)
    expected = slow_loss(*(slow_windows(f, window, max) for f in (student, teacher)))
    torch.testing.assert_close(PairwiseKD(form="skd")(student, teacher).item(), expected)


def test_skd_has_three_by_three_nodes_at_65() -> None:
    features = drawn(1, 2, 65, 65)
    nodes = PairwiseKD(form="skd")._nodes(features)
    assert nodes.shape == (1, 2, 3, 3)


def test_cirkd_agrees_with_loops_over_two_by_two_windows() -> None:
    student, teacher = drawn(2, 3, 5, 4), drawn(2, 5, 5, 4, seed=1)
    expected = slow_loss(*(slow_windows(f, (2, 2), max) for f in (student, teacher)))
    torch.testing.assert_close(PairwiseKD(form="cirkd")(student, teacher).item(), expected)


@pytest.mark.parametrize("form", ["default", "skd"])
def test_value_worked_by_hand(form) -> None:
    # Two cells, two nodes. Student nodes (1, 0) and (0, 5): cosine 0. Teacher's parallel: cosine 1.
    # Of the four ordered pairs the two off the diagonal differ by 1: 2 / 4.
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 5.0]]]])
    teacher = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    assert PairwiseKD(form=form)(student, teacher).item() == pytest.approx(0.5)


def test_cirkd_merges_the_two_cells() -> None:
    student, teacher = drawn(1, 2, 1, 2), drawn(1, 2, 1, 2, seed=1)
    # One node: its cosine with itself is 1 in both networks.
    assert PairwiseKD(form="cirkd")(student, teacher).item() == pytest.approx(0.0)


def gradient(form, student, teacher):
    student = student.clone().requires_grad_()
    PairwiseKD(form=form, nodes=64)(student, teacher).backward()
    return student.grad


def test_the_true_gradient_does_not_change_a_nodes_length_and_skds_does() -> None:
    # A cosine does not depend on lengths, so its gradient is at right angles to each node; with the
    # norm held constant it is not. Maps of one window a cell: pooling changes nothing.
    student, teacher = drawn(1, 4, 1, 3), drawn(1, 4, 1, 3, seed=1)
    true, skd = gradient("default", student, teacher), gradient("skd", student, teacher)
    radial = [(student * g).sum(1).abs().max() for g in (true, skd)]
    assert radial[0] < 1e-12
    assert radial[1] > 1e-4


def test_skds_gradient_is_that_of_fixed_norms() -> None:
    student, teacher = drawn(1, 4, 1, 3), drawn(1, 4, 1, 3, seed=1)
    # d/dx of mean (A_T - xᵀx / (|x_i| |x_j|))² with the lengths as constants.
    x, t = (features.flatten(2)[0] for features in (student, teacher))
    lengths = x.norm(dim=0)
    a_s = (x.T @ x) / lengths[:, None] / lengths
    a_t = (t.T @ t) / t.norm(dim=0)[:, None] / t.norm(dim=0)
    expected = x @ ((a_s - a_t) * 4 / 9 / lengths[:, None] / lengths)
    torch.testing.assert_close(gradient("skd", student, teacher)[0, :, 0], expected)


def test_nodes_bound_the_affinity_matrix() -> None:
    assert PairwiseKD()._nodes(drawn(1, 2, 40, 20)).shape == (1, 2, 16, 16)
    assert PairwiseKD()._nodes(drawn(1, 2, 5, 20)).shape == (1, 2, 5, 16)


def test_zero_features_have_a_finite_gradient_in_half() -> None:
    student = torch.zeros(1, 3, 4, 4, dtype=torch.float16, requires_grad=True)
    value = PairwiseKD()(student, drawn(1, 3, 4, 4).half())
    value.backward()
    assert torch.isfinite(value)
    assert (student.grad == 0).all()


def test_unit_vectors_have_length_one_or_zero() -> None:
    vectors = drawn(2, 3, 4)
    vectors[0, :, 1] = 0
    length = unit_vectors(vectors).norm(dim=1)
    expected = torch.ones(2, 4, dtype=torch.float64)
    expected[0, 1] = 0
    torch.testing.assert_close(length, expected)
