import pytest
import torch

from segdistill.losses import PixelToClass

K = 4


def drawn(seed: int = 0, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pair = [torch.randn(2, c, 5, 6, generator=generator, dtype=torch.float64) for c in (4, 7)]
    labels = torch.randint(0, classes, (2, 5, 6), generator=generator)
    labels[0, :2] = 255
    return pair[0], pair[1] * 3 + 2, labels


def built(**options: float) -> PixelToClass:
    loss = PixelToClass(K, **options).double()
    loss.build(torch.Size([2, 4, 5, 6]), torch.Size([2, 7, 5, 6]))
    return loss.double()


def slow_means(features: torch.Tensor, labels: torch.Tensor) -> dict[int, torch.Tensor]:
    found = {}
    for k in range(K):
        rows = [
            features[b, :, y, x]
            for b in range(2)
            for y in range(5)
            for x in range(6)
            if labels[b, y, x] == k
        ]
        if rows:
            found[k] = sum(rows) / len(rows)
    return found


def slow_nearness(
    features: torch.Tensor, means: dict[int, torch.Tensor], temperature: float
) -> list[torch.Tensor]:
    rows = []
    for b in range(2):
        for y in range(5):
            for x in range(6):
                point = features[b, :, y, x]
                rows.append(torch.stack([(point - m).norm() for m in means.values()]))
    scale = sum(row.sum() for row in rows) / (len(rows) * len(means))
    return [(-row / (temperature * scale)).softmax(0) for row in rows]


def slow_loss(student, teacher, ours, theirs, temperature=0.1) -> float:
    total = 0.0
    near = slow_nearness(student, ours, temperature)
    their = slow_nearness(teacher, theirs, temperature)
    for p, q in zip(their, near, strict=True):
        total += float((p * (p / q).log()).sum())
    return total / len(near)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_first_batch_is_compared_with_its_own_means(temperature: float) -> None:
    student, teacher, labels = drawn()
    expected = slow_loss(
        student, teacher, slow_means(student, labels), slow_means(teacher, labels), temperature
    )
    value = built(temperature=temperature)(student, teacher, labels)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    assert expected > 0.001


def test_prototypes_move_and_outlast_batches_without_their_class() -> None:
    """A class of the first batch that the second lacks keeps its mean; the others move by a tenth."""
    first, second = drawn(0, classes=4), drawn(1, classes=2)
    loss = built()
    loss(*first)
    value = loss(*second)
    means = []
    for side in (0, 1):
        old, new = slow_means(first[side], first[2]), slow_means(second[side], second[2])
        assert set(old) == {0, 1, 2, 3} and set(new) == {0, 1}
        means.append({k: 0.9 * m + 0.1 * new[k] if k in new else m for k, m in old.items()})
    assert value.item() == pytest.approx(slow_loss(second[0], second[1], *means), rel=1e-9)


def test_a_new_class_joins_with_the_mean_of_its_batch() -> None:
    first, second = drawn(0, classes=2), drawn(1, classes=3)
    loss = built(momentum=0.5)
    loss(*first)
    value = loss(*second)
    means = []
    for side in (0, 1):
        old, new = slow_means(first[side], first[2]), slow_means(second[side], second[2])
        means.append({k: (old[k] + m) / 2 if k in old else m for k, m in new.items()})
    assert value.item() == pytest.approx(slow_loss(second[0], second[1], *means), rel=1e-9)


def test_evaluation_reads_prototypes_and_leaves_them() -> None:
    loss = built()
    loss(*drawn(0, classes=4))
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    assert set(before) == {"ours.values", "ours.known", "theirs.values", "theirs.known"}
    loss.eval()
    loss(*drawn(1))
    assert all(torch.equal(before[name], tensor) for name, tensor in loss.state_dict().items())


def test_unlabelled_batches_are_compared_with_known_classes() -> None:
    student, teacher, labels = drawn()
    blank = torch.full_like(labels, 255)
    loss = built()
    assert loss(student, teacher, blank).item() == 0  # nothing is known
    known = loss(student, teacher, labels)
    torch.testing.assert_close(loss(student, teacher, blank), known)


@pytest.mark.parametrize("side", [0, 1])
def test_scale_shift_and_rotation_of_a_space_change_nothing(side: int) -> None:
    student, teacher, labels = drawn()
    expected = built()(student, teacher, labels)
    pair = [student, teacher]
    turn = torch.linalg.qr(torch.randn(pair[side].shape[1], pair[side].shape[1]).double())[0]
    pair[side] = torch.einsum("ij,bjhw->bihw", turn, pair[side]) * 7 + 100
    torch.testing.assert_close(built()(*pair, labels), expected, rtol=1e-9, atol=1e-12)


def test_a_large_offset_keeps_the_digits_of_float32() -> None:
    student, teacher, labels = (one.float() if one.is_floating_point() else one for one in drawn())
    loss = PixelToClass()  # whatever the number of classes that never occur
    loss.build(student.shape, teacher.shape)
    expected = loss(student, teacher, labels)
    moved = PixelToClass()
    moved.build(student.shape, teacher.shape)
    torch.testing.assert_close(moved(student + 300, teacher, labels), expected, rtol=2e-3, atol=0)


def test_gradient_is_that_of_fixed_prototypes() -> None:
    student, teacher, labels = drawn()
    loss = built()
    loss(*drawn(5, classes=4))
    loss.eval()
    blank = torch.full_like(labels, 255)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, blank), (student.requires_grad_(),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1}, "momentum is 1; expected 0"),
        ({"temperature": 0}, "temperature is 0; expected a positive"),
        ({"num_classes": 1}, "num_classes is 1; expected 2 or more"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelToClass(**{"num_classes": K, **options})


def test_a_loss_that_was_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"call build\(student_shape, teacher_shape\) first"):
        PixelToClass(K)(*drawn())
