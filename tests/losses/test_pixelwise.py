import math

import pytest
import torch

from segdistill.losses import PixelwiseKD


def softmax(values, temperature):
    powers = [math.exp(v / temperature) for v in values]
    return [p / sum(powers) for p in powers]


def slow_terms(student, teacher, temperature):
    """KL and cross-entropy of every pixel, by loops: [(kl, cross-entropy)]."""
    terms = []
    for b in range(student.shape[0]):
        for y in range(student.shape[2]):
            for x in range(student.shape[3]):
                p = softmax(teacher[b, :, y, x].tolist(), temperature)
                q = softmax(student[b, :, y, x].tolist(), temperature)
                kl = sum(a * math.log(a / c) for a, c in zip(p, q, strict=True))
                terms.append((kl, -sum(a * math.log(c) for a, c in zip(p, q, strict=True))))
    return terms


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, 2, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_default_agrees_with_loops(pair, temperature) -> None:
    terms = [kl for kl, _ in slow_terms(*pair, temperature)]
    value = PixelwiseKD(temperature)(*pair)
    torch.testing.assert_close(value.item(), temperature**2 * sum(terms) / len(terms))


def test_skd_sums_cross_entropies_over_the_batch(pair) -> None:
    terms = [ce for _, ce in slow_terms(*pair, 1.0)]
    # Summed over everything, divided by the 2 * 4 positions only.
    torch.testing.assert_close(PixelwiseKD(form="skd")(*pair).item(), sum(terms) / 8)


def test_ifvd_divides_by_the_classes_too(pair) -> None:
    terms = [kl for kl, _ in slow_terms(*pair, 3.0)]
    value = PixelwiseKD(3.0, form="ifvd")(*pair)
    torch.testing.assert_close(value.item(), sum(terms) / len(terms) / 5)


def test_forms_stand_in_their_published_relations(pair) -> None:
    ours, cirkd, ifvd, skd = (
        PixelwiseKD(form=form)(*pair) for form in ("default", "cirkd", "ifvd", "skd")
    )
    mean_cross_entropy = sum(ce for _, ce in slow_terms(*pair, 1.0)) / 24
    torch.testing.assert_close(ours, cirkd)
    torch.testing.assert_close(ifvd, cirkd / 5)
    torch.testing.assert_close(skd.item(), 3 * mean_cross_entropy)


def test_skd_and_default_have_the_same_gradient_up_to_the_batch(pair) -> None:
    gradients = []
    for form in ("default", "skd"):
        student = pair[0].clone().requires_grad_()
        PixelwiseKD(form=form)(student, pair[1]).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(gradients[1], 3 * gradients[0])


@pytest.mark.parametrize(
    ("form", "temperature", "share"),
    [("cirkd", 3.0, 3.0 / 24), ("ifvd", 3.0, 1 / 3.0 / 24 / 5), ("skd", 1.0, 1 / 8)],
)
def test_published_gradients_are_those_of_the_softmax(pair, form, temperature, share) -> None:
    # Of KL and of cross-entropy alike: (q - p) / T at each of the 3 * 8 pixels, times the reduction.
    student = pair[0].clone().requires_grad_()
    PixelwiseKD(temperature, form=form)(student, pair[1]).backward()
    q, p = (torch.exp(x / temperature) for x in pair)
    difference = q / q.sum(1, keepdim=True) - p / p.sum(1, keepdim=True)
    torch.testing.assert_close(student.grad, share * difference)


def test_values_worked_by_hand() -> None:
    # Teacher (3/4, 1/4), student (1/2, 1/2):
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.304099 - 0.173287 = 0.130812; cross-entropy = ln 2.
    teacher = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1)
    student = torch.zeros(1, 2, 1, 1)
    values = {form: PixelwiseKD(form=form)(student, teacher).item() for form in ("default", "skd")}
    assert values["default"] == pytest.approx(0.130812, abs=1e-6)
    assert values["skd"] == pytest.approx(math.log(2.0), abs=1e-6)
    # At T = 2 the teacher is (√3, 1) / (√3 + 1) = (0.633975, 0.366025), and T² = 4:
    # 4 (0.633975 ln 1.267949 + 0.366025 ln 0.732051) = 4 (0.150499 - 0.114160) = 0.14536.
    assert PixelwiseKD(2.0)(student, teacher).item() == pytest.approx(0.14536, abs=2e-5)


def test_a_constant_added_to_the_logits_of_a_pixel_changes_nothing(pair) -> None:
    shifted = pair[0] + torch.arange(8.0).view(1, 1, 2, 4)
    torch.testing.assert_close(PixelwiseKD()(shifted, pair[1]), PixelwiseKD()(*pair))


def test_probabilities_that_underflow_stay_finite() -> None:
    student = torch.tensor([0.0, 2000.0]).view(1, 2, 1, 1).requires_grad_()
    value = PixelwiseKD()(student, torch.tensor([3000.0, 0.0]).view(1, 2, 1, 1))
    value.backward()
    # All mass of the teacher on a class of log-probability -2000.
    assert value.item() == pytest.approx(2000.0)
    assert torch.isfinite(student.grad).all()


def test_a_temperature_contradicts_skd() -> None:
    with pytest.raises(ValueError, match=r"temperature is 4\.0; expected 1, as form='skd'"):
        PixelwiseKD(temperature=4.0, form="skd")
