"""What two sides of a difference do not share besides their methods."""

from collections.abc import Iterator, Mapping
from typing import Any

from segdistill.config import Recipe, to_dict
from segdistill.run.comparing.settings import WITHOUT_EFFECT, shown

_LEFT_OUT = WITHOUT_EFFECT | {"steps", "lr", "weight_decay", "skip_nonfinite"}
"""Keys of `train`: without effect, told apart from the rest, tuned for each method, or of failures."""
_LAST_DIGITS = {"deterministic", "accumulate", "channels_last"}
"""Of `train`: they change no more of a result than its last digits."""
_MOST = 4
"""Differences that are named."""


def unlike_in_words(one: Recipe | None, other: Recipe | None) -> str:
    """How training data, student and training differ, in a sentence; "" if they do not, or are not known."""
    if one is None or other is None:
        return ""
    first, second = dict(_settings(one)), dict(_settings(other))
    found = [
        f"{key} {shown(first.get(key))} against {shown(second.get(key))}"
        for key in {**first, **second}
        if first.get(key) != second.get(key)
    ]
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return f"Not only the methods differ: {', '.join(found[:_MOST])}{more}." if found else ""


def _settings(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    plain = to_dict(recipe)
    data = {key: plain["data"][key] for key in ("name", "size", "train_split", "train_options")}
    options = {key: value for key, value in plain["data"]["options"].items() if key != "cache"}
    yield from _leaves("data", {**data, "options": options})
    yield from _leaves("student", plain["student"])
    train = {key: v for key, v in plain["train"].items() if key not in _LEFT_OUT | _LAST_DIGITS}
    yield from _leaves("train", train)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inside in value.items():
        yield from _leaves(f"{key}.{name}", inside)
