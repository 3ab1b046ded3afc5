"""Shapes of plain values: what is wrong with a value that was read from a file, in words."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Shape = Callable[[Any, str], str]
"""says what is wrong with a value, which messages call by its key; "" if nothing is"""


def _unless(fits: bool, value: Any, key: str, expected: str) -> str:
    return "" if fits else f"{key} is {value!r:.40}; expected {expected}"


def number(low: float = -math.inf, high: float = math.inf, finite: bool = True) -> Shape:
    """A number within bounds; booleans are none."""
    bounds = f" in [{low:g}, {high:g}]" if math.inf > high else f" from {low:g}" * (low > -math.inf)

    def problem(value: Any, key: str) -> str:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = is_number and (low <= value <= high or (not finite and math.isnan(value)))
        # JSON may hold integers that no float can.
        fits = fits and abs(value) <= 1e300 if fits and finite else fits
        return _unless(fits, value, key, f"a number{bounds}")

    return problem


def whole(low: int = 0, high: int = 2**62) -> Shape:
    """An integer within bounds."""

    def problem(value: Any, key: str) -> str:
        fits = type(value) is int and low <= value <= high
        return _unless(fits, value, key, f"an integer from {low}")

    return problem


def text(value: Any, key: str) -> str:
    """Any text."""
    return _unless(isinstance(value, str), value, key, "text")


def truth(value: Any, key: str) -> str:
    """True or false."""
    return _unless(isinstance(value, bool), value, key, "true or false")


def among(*known: str) -> Shape:
    """One of these words."""

    def problem(value: Any, key: str) -> str:
        fits = isinstance(value, str) and value in known
        return _unless(fits, value, key, f"one of {', '.join(known)}")

    return problem


def plain(value: Any, key: str) -> str:
    """Anything but a list or a mapping."""
    return _unless(not isinstance(value, list | dict), value, key, "a single value")


def anything(_value: Any, _key: str) -> str:
    """Whatever it is."""
    return ""


def maybe(shape: Shape) -> Shape:
    """The value, or null."""

    def problem(value: Any, key: str) -> str:
        return "" if value is None else shape(value, key)

    return problem


def listed(shape: Shape, length: int | None = None) -> Shape:
    """A list of such values."""

    def problem(value: Any, key: str) -> str:
        if not isinstance(value, list) or length not in (None, len(value)):
            expected = "a list" if length is None else f"a list of {length} values"
            return _unless(False, value, key, expected)
        return next(filter(None, (shape(one, f"{key}.{n}") for n, one in enumerate(value))), "")

    return problem


def counts(value: Any, key: str) -> str:
    """A square table of counts. Without a call per cell, as there are 22,500 of 150 classes."""
    fits = (
        isinstance(value, list)
        and all(isinstance(row, list) and len(row) == len(value) for row in value)
        and all(type(cell) is int and 0 <= cell < 2**62 for row in value for cell in row)
    )
    return _unless(fits, value, key, "as many rows of counts as classes")


def mapping(shape: Shape) -> Shape:
    """A mapping to such values."""

    def problem(value: Any, key: str) -> str:
        if not isinstance(value, dict):
            return _unless(False, value, key, "a mapping")
        found = (shape(one, f"{key}.{name}") for name, one in value.items())
        return next(filter(None, found), "")

    return problem


def record(needed: Mapping[str, Shape], known: Mapping[str, Shape] | None = None) -> Shape:
    """A mapping that has these keys, and may have others, of which some are known."""

    def problem(value: Any, key: str) -> str:
        if not isinstance(value, dict):
            return _unless(False, value, key, "a mapping")
        missing = [name for name in needed if name not in value]
        if missing:
            return f"{key + ': ' if key != CONTENT else ''}{missing[0]} is missing"
        start = "" if key == CONTENT else f"{key}."
        shapes = {**needed, **(known or {})}
        found = (shapes[name](value[name], start + name) for name in shapes if name in value)
        return next(filter(None, found), "")

    return problem


CONTENT = "the content"
"""what messages call the whole file"""
