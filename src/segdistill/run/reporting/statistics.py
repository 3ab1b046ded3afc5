"""Statistics for runs paired by seed: mean, Student's t, intervals and Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("values is empty; expected at least one value")
    return math.fsum(values) / len(values)


def sd(values: Sequence[float]) -> float | None:
    """Sample standard deviation (denominator n - 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def t_within(t: float, df: int) -> float:
    """Probability that Student's t with `df` degrees of freedom is between -|t| and |t|.

    The finite series for integer `df`: Abramowitz and Stegun, Handbook of Mathematical Functions,
    26.7.3 (odd) and 26.7.4 (even).

    Raises:
        ValueError: `df` is below 1.
    """
    if df < 1:
        raise ValueError(f"df is {df}; expected a positive integer, that is, at least two values")
    angle = math.atan(abs(t) / math.sqrt(df))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for step in range(2 + odd, df - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return min(within, 1.0)


def t_quantile(confidence: float, df: int) -> float:
    """The t such that Student's t is within ±t with this probability: 12.706 for 0.95 and df = 1.

    Args:
        confidence: Two-sided probability, in (0, 1).
        df: Degrees of freedom, a positive integer.

    Raises:
        ValueError: An argument is out of its range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number in (0, 1), such as 0.95")
    low, high = 0.0, 1.0
    while t_within(high, df) < confidence:
        low, high = high, high * 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, df) < confidence else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Paired:
    """Statistics of paired differences, in their own units."""

    differences: tuple[float, ...]
    """one difference per pair (seed)"""
    mean: float
    """mean difference"""
    sd: float | None
    """standard deviation of the differences; None for one pair"""
    half_width: float | None
    """half the interval of the mean, t · sd / √n; None for one pair. Smaller gains are not detectable."""
    p: float | None
    """two-sided p value of the paired t test; None for one pair"""
    folds: Mapping[str, float] = field(default_factory=dict)
    """mean difference in each fold, where several are pooled"""

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half_width is None else self.mean + self.half_width

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero; False for one pair."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def paired(differences: Sequence[float], confidence: float = 0.95) -> Paired:
    """Mean, standard deviation, interval and t test of paired differences.

    Example:
        >>> result = paired([2.8, 3.5, 3.0])
        >>> f"{result.mean:.2f} ± {result.half_width:.2f}"
        '3.10 ± 0.90'
    """
    centre, spread, n = mean(differences), sd(differences), len(differences)
    if spread is None:
        return Paired(tuple(differences), centre, None, None, None)
    error = spread / math.sqrt(n)
    half_width, p = _student(centre, error, n - 1, confidence)
    return Paired(tuple(differences), centre, spread, half_width, p)


def pooled(by_fold: Mapping[str, Sequence[float]], confidence: float = 0.95) -> Paired:
    """Paired differences of several folds, with the fold as a block.

    With d_fs the difference in fold f with seed s, n_f seeds in fold f and F folds: the estimate is the mean
    of the fold means m_f. The model is d_fs = m_f + e_fs with one variance of e in all folds, estimated within
    them, s² = Σ_fs (d_fs − m_f)² / Σ_f (n_f − 1). The standard error of the estimate is
    s / F · √(Σ_f 1 / n_f), and its degrees of freedom are Σ_f (n_f − 1): the fold effects are removed, as in a
    randomised block design (Fisher 1935, The design of experiments). So the interval speaks of further
    seeds on *these* folds. How much folds differ is not in it; `folds` has each fold's mean.

    Args:
        by_fold: The differences of each fold, at least one each.
        confidence: Two-sided probability of the interval, in (0, 1).

    Raises:
        ValueError: There is no fold, or a fold has no differences.

    Example:
        >>> result = pooled({"a": [2.0, 4.0], "b": [7.0, 9.0]})
        >>> f"{result.mean:.2f} ± {result.half_width:.2f}"
        '5.50 ± 3.04'
    """
    means = {fold: mean(values) for fold, values in by_fold.items()}
    every = tuple(value for values in by_fold.values() for value in values)
    centre, df = mean(list(means.values())), len(every) - len(by_fold)
    if df < 1:
        return Paired(every, centre, None, None, None, means)
    squares = [(v - means[fold]) ** 2 for fold, values in by_fold.items() for v in values]
    spread = math.sqrt(math.fsum(squares) / df)
    parts = math.fsum(1 / len(values) for values in by_fold.values())
    error = spread / len(by_fold) * math.sqrt(parts)
    half_width, p = _student(centre, error, df, confidence)
    return Paired(every, centre, spread, half_width, p, means)


def _student(centre: float, error: float, df: int, confidence: float) -> tuple[float, float]:
    """Half the interval of a mean, and the two-sided p value of its t test against zero."""
    # Identical differences: t is infinite, or 0/0 if all are zero.
    t = centre / error if error else math.inf if centre else 0.0
    return t_quantile(confidence, df) * error, 1 - t_within(t, df)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values for multiple comparisons with Holm's step-down procedure.

    The smallest of m is multiplied by m, the next by m - 1 and so on; results are non-decreasing and at
    most 1. (Holm 1979, A simple sequentially rejective multiple test procedure.)
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
