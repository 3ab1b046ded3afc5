"""What two sides of a difference do not share besides their methods."""

from collections.abc import Iterator, Mapping
from typing import Any

from segdistill.config import Recipe, to_dict

_CHOSEN = {"seed", "steps", "lr", "weight_decay"}
"""Of `train`: paired, told apart from the rest, or tuned for each method."""
_RUNNING = {
    *("val_every", "save_every", "log_every", "workers", "hang_after", "device"),
    *("deterministic", "skip_nonfinite", "accumulate", "channels_last"),
}
"""Of `train`: they change no more than the last digits of a result."""
_MOST = 4
"""Differences that are named."""


def unlike_in_words(one: Recipe | None, other: Recipe | None) -> str:
    """How training data, student and training differ, in a sentence; "" if they do not, or are not known."""
    if one is None or other is None:
        return ""
    first, second = dict(_settings(one)), dict(_settings(other))
    found = [
        f"{key} {_shown(first.get(key))} against {_shown(second.get(key))}"
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
    train = {key: v for key, v in plain["train"].items() if key not in _CHOSEN | _RUNNING}
    yield from _leaves("train", train)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inside in value.items():
        yield from _leaves(f"{key}.{name}", inside)


def _shown(value: Any) -> str:
    return "by default" if value is None else f"{value!s:.40}"
