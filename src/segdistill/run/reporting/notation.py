"""Number formats for tables, charts and sentences."""

from collections.abc import Sequence

from segdistill.run.reporting.statistics import Paired


def number(value: float | None, digits: int) -> str:
    """A number with fixed decimals; a dash if unknown."""
    return "–" if value is None else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """A signed difference, with a minus sign as wide as the plus."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}"
    return (f"±{text[1:]}" if float(text) == 0 else text).replace("-", "−")


def spread(value: float | None, deviation: float | None, digits: int = 1) -> str:
    """Mean ± sd; only the mean for one value."""
    text = number(value, digits)
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def difference_text(difference: Paired | None) -> str:
    """Paired mean ± half its 95 % interval; only the difference for one pair."""
    if difference is None:
        return ""
    text = signed(difference.mean)
    return text if difference.half_width is None else f"{text} ± {difference.half_width:.1f}"


def quantity(value: float | None) -> str:
    """A count with four digits and an SI suffix: 13.07 M."""
    if value is None:
        return "–"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:#.4g}".rstrip(".") + f" {unit}"
    return f"{value:.4g}"


def time_unit(lengths: Sequence[float | None]) -> tuple[str, float]:
    """A suitable unit for a column of durations, and its length in seconds.

    Args:
        lengths: Durations in seconds, None if unknown; the longest decides.

    Returns:
        For example ("min", 60.0).
    """
    longest = max((length for length in lengths if length is not None), default=0.0)
    if longest < 90:
        return "s", 1.0
    return ("min", 60.0) if longest < 90 * 60 else ("h", 3600.0)


def p_text(p: float) -> str:
    """A p value in the usual notation."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def factor(ratio: float, more: str, less: str) -> str:
    """A ratio in words: "7.5× faster", "1.3× slower"."""
    size = max(ratio, 1 / ratio)
    text = f"{size:.0f}" if size >= 99.95 else f"{size:.1f}"
    return f"not {more}" if text == "1.0" else f"{text}× {more if ratio > 1 else less}"


def shortened(name: str, length: int = 22) -> str:
    """A name truncated to fit into a chart."""
    return name if len(name) <= length else f"{name[: length - 1]}…"
