import math

import numpy as np
import pytest
import torch

from segdistill.losses import FeatureRegression
from segdistill.losses.moments import balanced_basis, equalising_rotation, feature_moments, hadamard

PREPARED = ("default", "standardised", "phi_s")


def features(seed, b=2, c=3, h=4, w=5):
    """Correlated channels of different mean and variance."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(c, c, generator=generator, dtype=torch.float64)
    drawn = torch.randn(b, c, h, w, generator=generator, dtype=torch.float64)
    offset = torch.arange(c, dtype=torch.float64).view(1, c, 1, 1)
    return torch.einsum("dc,bchw->bdhw", mixing, drawn) + offset


def batches(count=3, c=3):
    return [(features(seed, c=2), features(10 + seed, c=c)) for seed in range(count)]


def ready(form="default", pairs=None):
    """A loss that is built for the pairs, prepared on them and in double precision."""
    pairs = pairs or batches()
    torch.manual_seed(0)
    loss = FeatureRegression(form)
    loss.build(pairs[0][0].shape, pairs[0][1].shape)
    loss.double().prepare(pairs)
    return loss


def rows(maps):
    """The features of each position as lists, image by image and row by row."""
    return [
        maps[b, :, y, x].tolist()
        for b in range(maps.shape[0])
        for y in range(maps.shape[2])
        for x in range(maps.shape[3])
    ]


def mapped(loss, student):
    """A s + b at each position, by loops."""
    weight = loss.projection.weight[:, :, 0, 0].tolist()
    bias = loss.projection.bias
    offset = [0.0] * len(weight) if bias is None else bias.tolist()
    return [
        [sum(a * v for a, v in zip(line, row, strict=True)) + o for line, o in zip(weight, offset)]  # noqa: B905
        for row in rows(student)
    ]


def mean_square(ours, targets):
    squares = [
        (a - t) ** 2
        for row, target in zip(ours, targets, strict=True)
        for a, t in zip(row, target, strict=True)
    ]
    return sum(squares) / len(squares)


def statistics(pairs):
    """Mean, variance and covariance of the teacher's channels over all batches, by NumPy."""
    table = np.array([row for _, teacher in pairs for row in rows(teacher)])
    return table.mean(0), table.var(0), np.cov(table.T, bias=True)


@pytest.mark.parametrize("form", ["mse", "cirkd"])
def test_squared_error_agrees_with_loops(form) -> None:
    student, teacher = batches()[0]
    loss = ready(form)
    expected = mean_square(mapped(loss, student), rows(teacher))
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert (loss.projection.bias is None) == (form == "cirkd")


def test_standardised_agrees_with_loops() -> None:
    pairs = batches()
    student, teacher = pairs[1]
    mean, variance, _ = statistics(pairs)
    loss = ready("standardised", pairs)
    targets = [
        [(v - m) / math.sqrt(s) for v, m, s in zip(row, mean, variance, strict=True)]
        for row in rows(teacher)
    ]
    expected = mean_square(mapped(loss, student), targets)
    # The statistics are kept in float32.
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", ["default", "phi_s"])
@pytest.mark.parametrize("width", [3, 4])
def test_phi_s_agrees_with_loops_over_the_rotated_target(form, width) -> None:
    pairs = batches(c=width)
    student, teacher = pairs[1]
    mean, variance, covariance = statistics(pairs)
    loss = ready(form, pairs)
    basis = loss.basis.numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(width), atol=1e-6)
    spread = math.sqrt(np.linalg.eigvalsh(covariance).mean())
    targets = [(basis @ (np.array(row) - mean) / spread).tolist() for row in rows(teacher)]
    expected = mean_square(mapped(loss, student), targets)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)
    # What the rotation is for: every channel of the target has variance 1 over the batches.
    table = np.array([row for _, t in pairs for row in rows(t)])
    rotated = (table - mean) @ basis.T / spread
    np.testing.assert_allclose(rotated.var(0), np.ones(width), rtol=1e-5)
    assert variance.max() > 1.5 * variance.min()


def test_srd_agrees_with_loops() -> None:
    student, teacher = batches()[0]
    loss = ready("srd")

    def normalised(table):
        columns = [list(column) for column in zip(*table, strict=True)]
        means = [sum(column) / len(column) for column in columns]
        spreads = [
            sum((v - m) ** 2 for v in column) / len(column)
            for column, m in zip(columns, means, strict=True)
        ]
        return [
            [(v - m) / math.sqrt(s + 1e-4) for v, m, s in zip(row, means, spreads, strict=True)]
            for row in table
        ]

    ours, theirs = normalised(mapped(loss, student)), normalised(rows(teacher))
    total = sum(
        abs(a - t) ** 4
        for row, target in zip(ours, theirs, strict=True)
        for a, t in zip(row, target, strict=True)
    )
    assert loss(student, teacher).item() == pytest.approx(2 * math.log(total), rel=1e-10)


def test_value_worked_by_hand() -> None:
    # One channel of two cells: teacher 1 and 5, so mean 3 and variance 4; targets -1 and 1.
    # The map is 2 s + 0: student 0 and 1 gives 0 and 2: (1 + 1) / 2 = 1. Plain: (1 + 9) / 2 = 5.
    student, teacher = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[1.0, 5.0]]]])
    for form, expected in (("default", 1), ("standardised", 1), ("mse", 5), ("cirkd", 5)):
        loss = FeatureRegression(form)
        loss.build(student.shape, teacher.shape)
        loss.prepare([(student, teacher)])
        torch.nn.init.constant_(loss.projection.weight, 2.0)
        if loss.projection.bias is not None:
            torch.nn.init.zeros_(loss.projection.bias)
        if form == "default":
            # An eigenvector's sign is free.
            loss.projection.weight.data *= loss.basis
        assert loss(student, teacher).item() == pytest.approx(expected)


@pytest.mark.parametrize("form", PREPARED)
def test_the_value_is_the_fraction_of_variance_left_unexplained(form) -> None:
    pairs = batches()
    loss = ready(form, pairs)
    for parameter in loss.parameters():
        torch.nn.init.zeros_(parameter)
    values = [loss(*pair).item() for pair in pairs]
    assert sum(values) / len(values) == pytest.approx(1, rel=1e-5)
    # A student that holds the teacher's features can reach 0.
    same = [(teacher, teacher) for _, teacher in pairs]
    loss = ready(form, same)
    scaled = torch.diag(loss.scale)
    weight = (loss.basis if form != "standardised" else torch.eye(3).double()) @ scaled
    loss.projection.weight.data = weight[..., None, None]
    loss.projection.bias.data = -weight @ loss.mean
    assert loss(*same[0]).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("form", PREPARED)
def test_the_teachers_scale_and_offset_do_not_matter(form) -> None:
    pairs = batches()
    moved = [(student, 1000 * teacher - 7) for student, teacher in pairs]
    first, second = ready(form, pairs), ready(form, moved)
    second.projection.load_state_dict(first.projection.state_dict())
    expected = first(*pairs[0])
    torch.testing.assert_close(second(*moved[0]), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("form", [*PREPARED, "mse"])
def test_neither_resolution_nor_repeated_channels_change_the_value(form) -> None:
    pairs = batches()
    student, teacher = pairs[0]
    loss = ready(form, pairs)
    expected = loss(student, teacher)
    finer = [x.repeat_interleave(2, 2).repeat_interleave(3, 3) for x in (student, teacher)]
    torch.testing.assert_close(loss(*finer), expected)
    wide = ready(form, [(s, torch.cat([t, t], 1)) for s, t in pairs])
    layer = loss.projection
    weight, bias = layer.weight.data.flatten(1), layer.bias.data
    if form in ("default", "phi_s"):
        # In the teacher's own basis, where a channel that is repeated can be.
        weight, bias = loss.basis.T @ weight, loss.basis.T @ bias
    weight, bias = torch.cat([weight, weight]), torch.cat([bias, bias])
    if form in ("default", "phi_s"):
        weight, bias = wide.basis @ weight, wide.basis @ bias
    wide.projection.weight.data, wide.projection.bias.data = weight[..., None, None], bias
    torch.testing.assert_close(
        wide(student, torch.cat([teacher, teacher], 1)), expected, rtol=1e-5, atol=0
    )


def test_the_gradient_of_srd_does_not_change_with_the_batch_though_its_value_does() -> None:
    student, teacher = batches()[0]
    loss = ready("srd")
    gradients, values = [], []
    for copies in (1, 2):
        own = student.clone().requires_grad_()
        value = loss(torch.cat([own] * copies), torch.cat([teacher] * copies))
        gradients.append(torch.autograd.grad(value, own)[0])
        values.append(value.item())
    torch.testing.assert_close(*gradients)
    assert values[1] - values[0] == pytest.approx(2 * math.log(2))


def test_srd_ends_at_the_teacher_with_a_finite_value_and_no_gradient() -> None:
    # The released code takes the logarithm of 0 there.
    teacher = features(0)
    loss = ready("srd", [(teacher, teacher)])
    loss.projection.weight.data = torch.eye(3).double()[..., None, None]
    torch.nn.init.zeros_(loss.projection.bias)
    student = teacher.clone().requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert math.isfinite(value.item())
    assert (student.grad == 0).all()


def test_a_silent_channel_is_counted_and_not_magnified() -> None:
    pairs = batches()
    for _, teacher in pairs:
        teacher[:, 1] = 5 + 1e-9 * teacher[:, 1]
    loss = FeatureRegression("standardised")
    loss.build(pairs[0][0].shape, pairs[0][1].shape)
    assert loss.double().prepare(pairs)["silent_channels"] == 1
    assert loss.scale[1] == 0
    assert ready("default", pairs)(*pairs[0]) < 10


def test_a_constant_teacher_is_refused() -> None:
    pairs = [(features(0, c=2), torch.ones(2, 3, 4, 5))]
    loss = FeatureRegression()
    loss.build(pairs[0][0].shape, pairs[0][1].shape)
    with pytest.raises(ValueError, match="features are constant; expected features that vary"):
        loss.prepare(pairs)


def test_what_is_missing_is_named() -> None:
    student, teacher = batches()[0]
    loss = FeatureRegression()
    with pytest.raises(ValueError, match=r"no projection yet; call build\("):
        loss(student, teacher)
    with pytest.raises(ValueError, match="teacher is missing; expected one"):
        loss.build(student.shape, None)
    loss.build(student.shape, teacher.shape)
    with pytest.raises(ValueError, match=r"not measured yet; call prepare\(batches\) first"):
        loss.double()(student, teacher)
    with pytest.raises(ValueError, match="batches hold no teacher features"):
        loss.prepare([(student, None)])


def test_state_restores_the_loss_without_preparation() -> None:
    pairs = batches()
    loss = ready("phi_s", pairs)
    fresh = FeatureRegression("phi_s")
    fresh.build(pairs[0][0].shape, pairs[0][1].shape)
    fresh.double().load_state_dict(loss.state_dict())
    assert torch.equal(fresh(*pairs[0]), loss(*pairs[0]))


@pytest.mark.parametrize("form", FeatureRegression.forms)
def test_only_forms_with_statistics_ask_for_preparation(form) -> None:
    loss = FeatureRegression(form)
    assert loss.wants_preparation == (form in PREPARED)
    loss.build(torch.Size([1, 2, 3, 3]), torch.Size([1, 4, 3, 3]))
    assert bool(loss.prepare(batches(c=4))) == (form in PREPARED)


@pytest.mark.parametrize("form", FeatureRegression.forms)
def test_the_projection_is_trained(form) -> None:
    student, teacher = batches()[0]
    loss = ready(form)
    loss(student, teacher).backward()
    assert loss.projection.weight.grad.abs().sum() > 1e-3
    if form not in ("srd", "cirkd"):  # batch normalisation takes an offset out again
        assert loss.projection.bias.grad.abs().sum() > 1e-3


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 12, 19])
def test_a_balanced_basis_gives_all_channels_the_mean_variance(width) -> None:
    mean, covariance = feature_moments([features(seed, c=width, b=3) for seed in range(2)])
    basis = balanced_basis(covariance)
    torch.testing.assert_close(basis @ basis.T, torch.eye(width).double())
    variances = (basis @ covariance @ basis.T).diagonal()
    torch.testing.assert_close(variances, covariance.diagonal().mean().expand(width))
    assert len(mean) == width


def test_a_hadamard_matrix_mixes_all_channels_equally() -> None:
    matrix = hadamard(8)
    torch.testing.assert_close(matrix.abs(), torch.full((8, 8), 8**-0.5).double())
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8).double())


def test_equal_variances_need_no_rotation() -> None:
    assert torch.equal(equalising_rotation(torch.ones(5).double()), torch.eye(5).double())
