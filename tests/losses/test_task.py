import math

import pytest
import torch
from torch.nn import functional as F

from segdistill.losses import CrossEntropy
from segdistill.losses.task import hard_labels


def slow_mean(logits, labels, weight=None):
    """Plain loops over pixels."""
    total, count = 0.0, 0.0
    for b in range(logits.shape[0]):
        for y in range(logits.shape[2]):
            for x in range(logits.shape[3]):
                label = int(labels[b, y, x])
                if label == 255:
                    continue
                z = [float(v) for v in logits[b, :, y, x]]
                share = 1.0 if weight is None else weight[label]
                total += share * (math.log(sum(math.exp(v) for v in z)) - z[label])
                count += share
    return total / count


def drawn(seed=0, k=4, size=(6, 7)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, k, *size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, k, (2, *size), generator=generator)
    labels[0, :2] = 255
    return logits, labels


def test_value_of_one_pixel_worked_by_hand() -> None:
    # p = (3/4, 1/4); the label is the second: -ln(1/4) = ln 4. The other pixel is ignored.
    logits = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    value = CrossEntropy()(logits, torch.tensor([[[1, 255]]]))
    torch.testing.assert_close(value.item(), math.log(4.0))


def test_mean_over_valid_pixels_agrees_with_loops() -> None:
    logits, labels = drawn()
    torch.testing.assert_close(CrossEntropy()(logits, labels).item(), slow_mean(logits, labels))


def test_class_weights_give_the_weighted_mean() -> None:
    logits, labels = drawn()
    weight = [0.5, 1.0, 2.0, 8.0]
    value = CrossEntropy(weight=weight)(logits, labels)
    torch.testing.assert_close(value.item(), slow_mean(logits, labels, weight))


def slow_balanced(pixels, balance):
    total = sum(pixels)
    power = {"sqrt": 0.5, "inverse": 1.0}[balance]
    raw = [(total / count) ** power for count in pixels if count]
    return [(total / count) ** power / (sum(raw) / len(raw)) if count else 1.0 for count in pixels]


@pytest.mark.parametrize("balance", ["sqrt", "inverse"])
def test_balanced_classes_agree_with_loops_and_with_given_weights(balance) -> None:
    pixels = [700, 0, 250, 50]
    loss = CrossEntropy(balance=balance)
    loss.count_classes(torch.tensor(pixels))
    expected = slow_balanced(pixels, balance)
    assert loss.weight.tolist() == pytest.approx(expected, rel=1e-6)
    occurring = [w for w, count in zip(expected, pixels, strict=True) if count]
    assert sum(occurring) / 3 == pytest.approx(1)
    logits, labels = drawn()
    logits.requires_grad_()
    value = loss(logits, labels)
    assert value.item() == pytest.approx(slow_mean(logits.detach(), labels, expected), rel=1e-6)
    given = CrossEntropy(weight=expected)
    torch.testing.assert_close(value, given(logits, labels))
    shapes = logits.shape, None
    assert torch.equal(loss.denominator(labels, *shapes), given.denominator(labels, *shapes))
    gradients = [torch.autograd.grad(one(logits, labels), logits)[0] for one in (loss, given)]
    torch.testing.assert_close(*gradients)


def test_balance_worked_by_hand() -> None:
    # Shares 0.9 and 0.1: 1/share = 10/9 and 10 over their mean 50/9 is 0.2 and 1.8.
    loss = CrossEntropy(balance="inverse")
    loss.count_classes(torch.tensor([900, 100]))
    assert loss.weight.tolist() == pytest.approx([0.2, 1.8])
    plain = CrossEntropy()
    plain.count_classes(torch.tensor([900, 100]))
    assert plain.weight is None and not plain.wants_class_pixels


def test_a_balance_that_cannot_be_is_refused() -> None:
    logits, labels = drawn()
    with pytest.raises(ValueError, match="balance is 'log'; expected none, sqrt or inverse"):
        CrossEntropy(balance="log")
    with pytest.raises(
        ValueError, match=r"balance is sqrt and weight is given; expected one of them\. Set weight"
    ):
        CrossEntropy(balance="sqrt", weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"classes are not counted yet; call count_classes"):
        CrossEntropy(balance="sqrt")(logits, labels)


def test_weights_of_another_number_of_classes_are_refused() -> None:
    logits, labels = drawn()
    with pytest.raises(ValueError, match="weight has 3 entries; expected one weight per class, 4"):
        CrossEntropy(weight=[1.0, 1.0, 1.0])(logits, labels)


@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_are_resized_to_the_labels(align_corners) -> None:
    logits, _ = drawn()
    labels = drawn(1, size=(11, 13))[1]
    resized = F.interpolate(logits, (11, 13), mode="bilinear", align_corners=align_corners)
    value = CrossEntropy(align_corners=align_corners)(logits, labels)
    torch.testing.assert_close(value.item(), slow_mean(resized, labels))


def test_ignored_pixels_do_not_change_the_loss() -> None:
    logits, labels = drawn()
    changed = logits.clone()
    changed[0, :, :2] += 100 * torch.randn(4, 2, 7, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(CrossEntropy()(changed, labels), CrossEntropy()(logits, labels))


def slow_zoom(p, labels):
    """What `scipy.ndimage.zoom` by 1/8 makes: corners on corners, linear and nearest."""
    rows, columns = (round(side / 8) for side in labels.shape[1:])
    small = torch.zeros(*p.shape[:2], rows, columns, dtype=p.dtype)
    small_labels = torch.zeros(len(p), rows, columns, dtype=labels.dtype)
    for i in range(rows):
        for j in range(columns):
            y, x = i * (p.shape[2] - 1) / (rows - 1), j * (p.shape[3] - 1) / (columns - 1)
            top, left = min(int(y), p.shape[2] - 2), min(int(x), p.shape[3] - 2)
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = (1 - abs(y - top - dy)) * (1 - abs(x - left - dx))
                small[:, :, i, j] += share * p[:, :, top + dy, left + dx]
            small_labels[:, i, j] = labels[:, int(y + 0.5), int(x + 0.5)]
    return small, small_labels


def slow_hard(logits, labels, threshold, min_kept):
    """SKD's rule by loops."""
    p = logits.softmax(1)
    small, small_labels = slow_zoom(p, labels)
    seen = sorted(
        small[b, small_labels[b, y, x], y, x].item()
        for b in range(small.shape[0])
        for y in range(small.shape[2])
        for x in range(small.shape[3])
        if small_labels[b, y, x] != 255
    )
    kept = min_kept // 64
    if kept >= len(seen):
        threshold = 1.0
    elif kept > 0:
        threshold = max(threshold, seen[kept - 1])
    hard = labels.clone()
    for b in range(p.shape[0]):
        for y in range(p.shape[2]):
            for x in range(p.shape[3]):
                label = int(labels[b, y, x])
                if label != 255 and p[b, label, y, x] > threshold:
                    hard[b, y, x] = 255
    return hard


# 60 and 44 are not multiples of 8; a kept number of 0, of a few, of more than there are.
@pytest.mark.parametrize("min_kept", [0, 64 * 30, 10**6])
def test_hard_pixels_are_those_of_the_released_rule(min_kept) -> None:
    logits, labels = drawn(2, k=3, size=(60, 44))
    ours = hard_labels(logits, labels, 0.3, min_kept)
    assert torch.equal(ours, slow_hard(logits, labels, 0.3, min_kept))
    kept = (ours != 255).sum()
    assert kept == (labels != 255).sum() if min_kept == 10**6 else kept < (labels != 255).sum()


def test_ohem_drops_the_easy_pixel() -> None:
    # Probabilities of the right class: 0.5 and 0.9; only the first is at most 0.7.
    logits = torch.tensor([[[[0.0, math.log(9.0)]], [[0.0, 0.0]]]])
    value = CrossEntropy(ohem=True, min_kept=0)(logits, torch.zeros(1, 1, 2, dtype=torch.int64))
    torch.testing.assert_close(value.item(), math.log(2.0))
