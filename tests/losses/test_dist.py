import math

import numpy as np
import pytest
import torch

from segdistill.losses import CorrelationKD

FORMS = CorrelationKD.forms


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def softmax(values, temperature):
    powers = [math.exp(v / temperature) for v in values]
    return [p / sum(powers) for p in powers]


def table(logits, temperature):
    """Rows of class probabilities, one for each position of the batch, by loops."""
    return [
        softmax(logits[b, :, y, x].tolist(), temperature)
        for b in range(logits.shape[0])
        for y in range(logits.shape[2])
        for x in range(logits.shape[3])
    ]


def pearson(xs, ys):
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return covariance / math.sqrt(sum((x - mx) ** 2 for x in xs) * sum((y - my) ** 2 for y in ys))


def slow_parts(student, teacher, temperature=1.0):
    """(inter, intra): one minus the mean correlation of rows, and of columns."""
    ours, theirs = table(student, temperature), table(teacher, temperature)
    rows = [pearson(a, b) for a, b in zip(ours, theirs, strict=True)]
    columns = [
        pearson([row[k] for row in ours], [row[k] for row in theirs])
        for k in range(student.shape[1])
    ]
    return 1 - sum(rows) / len(rows), 1 - sum(columns) / len(columns)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_agrees_with_loops_over_rows_and_columns(pair, form, temperature) -> None:
    inter, intra = slow_parts(*pair, temperature)
    value = CorrelationKD(2.0, 0.5, temperature, form)(*pair).item()
    # 1e-8 in the released denominator weighs more where a temperature makes the rows flat.
    assert value == pytest.approx(temperature**2 * (2 * inter + 0.5 * intra), rel=1e-5)


@pytest.mark.parametrize(("beta", "gamma"), [(1, 0), (0, 1)])
def test_each_factor_belongs_to_its_part(pair, beta, gamma) -> None:
    value = CorrelationKD(beta, gamma)(*pair).item()
    assert value == pytest.approx(slow_parts(*pair)[0 if beta else 1])


def test_published_value_and_gradient_are_those_of_an_independent_reference(pair) -> None:
    # The gradient by central differences of NumPy's own correlations plus the released 1e-8.
    def reference(logits):
        parts = []
        ours, theirs = (np.array(table(x, 1.0)) for x in (logits, pair[1]))
        for x, y in ((ours, theirs), (ours.T, theirs.T)):
            covariance = [np.cov(a, b, bias=True) * a.size for a, b in zip(x, y, strict=True)]
            parts.append(
                np.mean([c[0, 1] / (np.sqrt(c[0, 0] * c[1, 1]) + 1e-8) for c in covariance])
            )
        return 2 - sum(parts)

    student = pair[0].clone().requires_grad_()
    value = CorrelationKD(form="dist")(student, pair[1])
    value.backward()
    assert value.item() == pytest.approx(reference(pair[0]), abs=1e-10)
    slopes = torch.zeros_like(pair[0])
    for place in np.ndindex(*pair[0].shape):
        step = torch.zeros_like(pair[0])
        step[place] = 1e-5
        slopes[place] = (reference(pair[0] + step) - reference(pair[0] - step)) / 2e-5
    torch.testing.assert_close(student.grad, slopes, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_value_worked_by_hand(form) -> None:
    # Two classes, two positions: any two rows of two are correlated by +1 or -1.
    # Student (3/4, 1/4), (1/3, 2/3); teacher (9/10, 1/10), (3/5, 2/5). Rows: the first agrees, +1;
    # in the second the student's falls where the teacher's rises, -1: mean 0, inter = 1. Columns:
    # both fall, or rise, together: +1, intra = 0.
    student = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64).log()
    teacher = torch.tensor([[9.0, 1.0], [3.0, 2.0]], dtype=torch.float64).log()
    maps = [rows.T.reshape(1, 2, 1, 2) for rows in (student, teacher)]
    assert CorrelationKD(1, 0, form=form)(*maps).item() == pytest.approx(1, abs=1e-6)
    assert CorrelationKD(0, 1, form=form)(*maps).item() == pytest.approx(0, abs=1e-6)


def test_the_released_form_is_all_but_zero_at_the_teacher(pair) -> None:
    assert 0 < CorrelationKD(form="dist")(pair[1], pair[1]).item() < 1e-5


def test_columns_run_over_the_whole_batch(pair) -> None:
    loss = CorrelationKD(0, 1)
    apart = sum(loss(pair[0][i : i + 1], pair[1][i : i + 1]) for i in range(2)) / 2
    joined = [torch.cat(list(x), dim=2)[None] for x in pair]
    torch.testing.assert_close(loss(*joined), loss(*pair))
    assert abs(loss(*pair) - apart) > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_neither_the_order_of_positions_nor_a_constant_in_the_logits_matters(pair, form) -> None:
    loss = CorrelationKD(form=form)
    order = [x.transpose(2, 3).flip(2) for x in pair]
    torch.testing.assert_close(loss(*order), loss(*pair))
    shifted = pair[0] + torch.arange(12.0).view(1, 1, 3, 4)
    torch.testing.assert_close(loss(shifted, pair[1]), loss(*pair))


def test_an_affine_change_of_the_probabilities_costs_nothing() -> None:
    # What the method is for: halving all distances from the uniform row keeps every correlation.
    teacher = torch.softmax(torch.randn(1, 4, 3, 3, dtype=torch.float64), 1)
    student = (0.5 * teacher + 0.125).log()
    assert CorrelationKD()(student, teacher.log()).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_constant_student_has_a_finite_value_and_no_gradient(dtype) -> None:
    # 150 classes at 4,096 positions: enough for the rounding of the mean to show.
    student = torch.full((1, 150, 64, 64), 0.3, dtype=dtype, requires_grad=True)
    teacher = torch.randn(1, 150, 64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    value = CorrelationKD()(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(2)
    assert (student.grad == 0).all()


def test_where_the_teacher_is_constant_there_is_nothing_to_learn(pair) -> None:
    student = pair[0].clone().requires_grad_()
    value = CorrelationKD()(student, torch.zeros_like(pair[1]))
    value.backward()
    assert value.item() == 0
    assert (student.grad == 0).all()


def test_constant_rows_of_the_teacher_do_not_dilute_the_mean_of_the_default(pair) -> None:
    student, teacher = pair
    teacher[:, :, 0] = 0
    inter = 1 - np.mean(
        [
            pearson(a, b)
            for a, b in zip(table(student, 1.0), table(teacher, 1.0), strict=True)
            if max(b) - min(b) > 1e-9
        ]
    )
    assert CorrelationKD(1, 0)(student, teacher).item() == pytest.approx(inter)


def test_a_factor_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="dist: gamma is -1; expected 0"):
        CorrelationKD(gamma=-1)
