import math

import pytest

from segdistill.run.reporting.statistics import holm, mean, paired, sd, t_quantile, t_within


def test_mean_and_sd_worked_by_hand():
    # (1 + 2 + 6) / 3 = 3; squares 4 + 1 + 9 = 14; 14 / 2 = 7.
    assert mean([1, 2, 6]) == 3
    assert sd([1, 2, 6]) == pytest.approx(math.sqrt(7))
    assert sd([1.0]) is None
    with pytest.raises(ValueError, match="expected at least one"):
        mean([])


@pytest.mark.parametrize(
    ("df", "expected"),
    # The printed tables of Student's t, two-sided 95 %.
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (9, 2.262),
        (10, 2.228),
        (30, 2.042),
    ],
)
def test_quantiles_are_those_of_the_printed_tables(df, expected):
    assert t_quantile(0.95, df) == pytest.approx(expected, abs=5e-4)


def test_probability_within_equals_closed_forms():
    # df 1 is Cauchy: 2/π atan t. df 2: t / √(2 + t²).
    assert t_within(1.0, 1) == pytest.approx(0.5)
    assert t_within(-3.0, 2) == pytest.approx(3 / math.sqrt(11))
    assert t_within(0.0, 7) == 0
    assert t_within(math.inf, 4) == 1


def test_probability_within_agrees_with_an_integral_of_the_density():
    for df in (3, 4, 7, 12):
        scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
        steps, t = 4000, 1.7
        width = t / steps
        middles = ((i + 0.5) * width for i in range(steps))
        area = sum(scale * (1 + x * x / df) ** (-(df + 1) / 2) for x in middles) * width
        assert t_within(t, df) == pytest.approx(2 * area, abs=1e-7)


def test_quantile_refuses_undefined_arguments():
    with pytest.raises(ValueError, match=r"expected a number in \(0, 1\)"):
        t_quantile(1.0, 3)
    with pytest.raises(ValueError, match="df is 0; expected a positive integer"):
        t_quantile(0.95, 0)


def test_paired_interval_worked_by_hand():
    # Mean 3.1; deviations -.3 .4 -.1: .26 / 2 = .13, sd .36056; 4.30265 · .36056 / √3 = .8957.
    result = paired([2.8, 3.5, 3.0])
    assert result.mean == pytest.approx(3.1)
    assert result.sd == pytest.approx(math.sqrt(0.13))
    assert result.half_width == pytest.approx(0.8957, abs=1e-4)
    assert (result.low, result.high) == pytest.approx((2.2043, 3.9957), abs=1e-4)
    # t = 14.892, df 2: p = 1 - t / √(2 + t²).
    assert result.p == pytest.approx(0.004479, abs=1e-6)
    assert result.clear


def test_three_seeds_detect_nothing_below_two_and_a_half_standard_deviations():
    assert paired([-1.0, 0.0, 1.0]).half_width == pytest.approx(2.484, abs=1e-3)


def test_one_pair_has_no_interval():
    result = paired([5.0])
    assert (result.mean, result.half_width, result.p, result.low) == (5.0, None, None, None)
    assert not result.clear


def test_identical_differences_have_a_p_of_zero_or_one():
    assert paired([2.0, 2.0]).p == 0 and paired([2.0, 2.0]).clear
    assert paired([0.0, 0.0]).p == 1 and not paired([0.0, 0.0]).clear


def test_holm_by_hand():
    # Sorted .01 .03 .04: 3·.01, 2·.03, then 1·.04 is raised to .06.
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx(
        {"a": 0.06, "b": 0.03, "c": 0.06}
    )
    assert list(holm({"a": 0.9, "b": 0.8})) == ["a", "b"]
    assert holm({"a": 0.9, "b": 0.8})["b"] == 1
    assert holm({}) == {}
