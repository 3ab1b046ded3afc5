import math
from functools import partial

import pytest
import torch

from segdistill.losses import IGNORED, DecoupledKD, PixelwiseKD
from segdistill.losses.decoupled import split_kl, z_scores


def softmax(values, temperature=1.0):
    powers = [math.exp(v / temperature) for v in values]
    return [p / sum(powers) for p in powers]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow_split(student, teacher, first, temperature):
    """(between, within the first, within the others) of one position's logits, by loops."""
    q, p = (softmax(values, temperature) for values in (student, teacher))
    groups = [sorted(first), [k for k in range(len(p)) if k not in first]]
    masses = [[sum(x[k] for k in group) for group in groups] for x in (p, q)]
    inside = [
        kl(*([x[k] / mass[i] for k in group] for x, mass in zip((p, q), masses, strict=True)))
        for i, group in enumerate(groups)
    ]
    return kl(*masses), *inside


def scores(values):
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return [(v - mean) / spread for v in values]


def positions(x):
    return [
        (b, r, c) for b in range(x.shape[0]) for r in range(x.shape[2]) for c in range(x.shape[3])
    ]


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.fixture
def labels():
    drawn = torch.randint(0, 5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    drawn[0, 0] = IGNORED
    return drawn


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("standardise", [False, True])
def test_dkd_agrees_with_loops(pair, labels, temperature, standardise) -> None:
    expected, counted = 0.0, 0
    for b, r, c in positions(pair[0]):
        target = int(labels[b, r, c])
        if target == IGNORED:
            continue
        ours, theirs = (x[b, :, r, c].tolist() for x in pair)
        if standardise:
            ours, theirs = scores(ours), scores(theirs)
        between, _, others = slow_split(ours, theirs, {target}, temperature)
        expected += temperature**2 * (0.5 * between + 8 * others)
        counted += 1
    loss = DecoupledKD(0.5, 8, temperature, standardise)
    assert loss(*pair, labels).item() == pytest.approx(expected / counted, rel=1e-10)
    assert loss.denominator(labels, pair[0].shape, pair[1].shape) == counted == 20


@pytest.mark.parametrize("top", [1, 2, 4])
@pytest.mark.parametrize("standardise", [False, True])
def test_gdkd_agrees_with_loops(pair, top, standardise) -> None:
    expected = 0.0
    for b, r, c in positions(pair[0]):
        ours, theirs = (x[b, :, r, c].tolist() for x in pair)
        first = set(sorted(range(5), key=lambda k: -theirs[k])[:top])
        if standardise:
            ours, theirs = scores(ours), scores(theirs)
        between, inside, rest = slow_split(ours, theirs, first, 2.0)
        expected += 4 * (0.5 * between + 3 * inside + 2 * rest) / 24
    loss = PixelwiseKD(2, standardise=standardise, top=top, alpha=0.5, beta=2, gamma=3)
    assert loss(*pair).item() == pytest.approx(expected, rel=1e-10)


def test_standardised_logits_agree_with_loops(pair) -> None:
    expected = sum(
        kl(*(softmax(scores(x[b, :, r, c].tolist()), 2.0) for x in (pair[1], pair[0])))
        for b, r, c in positions(pair[0])
    )
    value = PixelwiseKD(2.0, standardise=True)(*pair).item()
    assert value == pytest.approx(4 * expected / 24, rel=1e-10)


def test_the_gate_counts_sure_positions_and_divides_by_all(pair) -> None:
    expected, sure = 0.0, 0
    for b, r, c in positions(pair[0]):
        ours, theirs = (x[b, :, r, c].tolist() for x in pair)
        if max(softmax(theirs)) >= 0.8:
            expected += 9 * kl(softmax(theirs, 3.0), softmax(ours, 3.0)) / 24
            sure += 1
    assert 0 < sure < 24
    value = PixelwiseKD(3.0, confidence=0.8)(*pair).item()
    assert value == pytest.approx(expected, rel=1e-10)


def test_the_parts_make_up_the_whole(pair, labels) -> None:
    first = pair[1] > 0
    first[:, 0], first[:, 1] = True, False
    between, inside, rest = split_kl(*pair, first, 1.0)
    mass = (pair[1].softmax(1) * first).sum(1)
    whole = (between + mass * inside + (1 - mass) * rest).mean()
    torch.testing.assert_close(whole, PixelwiseKD()(*pair))


def test_value_worked_by_hand() -> None:
    # Teacher (1/2, 3/8, 1/8), student (1/4, 3/8, 3/8), label 0.
    # Target: 1/2 ln 2 + 1/2 ln(2/3) = 0.143841. Others: (3/4, 1/4) against (1/2, 1/2): 0.130812.
    teacher = torch.tensor([4.0, 3.0, 1.0]).log().view(1, 3, 1, 1)
    student = torch.tensor([2.0, 3.0, 3.0]).log().view(1, 3, 1, 1)
    label = torch.zeros(1, 1, 1, dtype=torch.long)
    values = [DecoupledKD(*f)(student, teacher, label).item() for f in ((1, 0), (0, 1), (2, 8))]
    assert values == pytest.approx([0.143841, 0.130812, 2 * 0.143841 + 8 * 0.130812], abs=1e-6)
    # The teacher's top class is the label here.
    assert PixelwiseKD(top=1, alpha=2, beta=8)(student, teacher).item() == pytest.approx(values[2])


def test_the_length_of_the_logits_does_not_matter_when_standardised(pair) -> None:
    loss = PixelwiseKD(standardise=True)
    torch.testing.assert_close(loss(7 * pair[0] + 2, pair[1]), loss(*pair))
    torch.testing.assert_close(z_scores(pair[0]).std(1), torch.ones(2, 3, 4).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_constant_logits_have_a_finite_value_and_no_gradient_when_standardised(dtype) -> None:
    student = torch.full((1, 150, 8, 8), 0.3, dtype=dtype, requires_grad=True)
    teacher = torch.randn(1, 150, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    value = PixelwiseKD(standardise=True)(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert (student.grad == 0).all()


@pytest.mark.parametrize(
    "loss",
    [
        partial(PixelwiseKD(top=1), teacher=torch.tensor([3000.0, 0.0, 5.0]).view(1, 3, 1, 1)),
        partial(
            DecoupledKD(),
            teacher=torch.tensor([3000.0, 0.0, 5.0]).view(1, 3, 1, 1),
            labels=torch.zeros(1, 1, 1, dtype=torch.long),
        ),
    ],
)
def test_probabilities_that_underflow_stay_finite(loss) -> None:
    student = torch.tensor([0.0, 2000.0, -9.0]).view(1, 3, 1, 1).requires_grad_()
    value = loss(student)
    value.backward()
    # All mass of the teacher on a class of log-probability -2000, and 2004 + among the rest.
    assert math.isfinite(value.item()) and value.item() > 2000
    assert torch.isfinite(student.grad).all()


def test_a_top_of_all_classes_leaves_one(pair) -> None:
    assert PixelwiseKD(top=99)(*pair) == PixelwiseKD(top=4)(*pair)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 5, "form": "skd"}, "top is 5 with form='skd', which has no such option"),
        ({"standardise": True, "form": "ifvd"}, "standardise is True with form='ifvd'"),
        ({"confidence": 95}, r"confidence is 95; expected a probability in \[0, 1\]"),
        ({"top": 0}, "top is 0; expected a positive number"),
        ({"beta": -1}, r"beta is -1; expected 0 \(off\) or a positive number"),
    ],
)
def test_what_cannot_be_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=f"^pixelwise: {message}"):
        PixelwiseKD(**options)
