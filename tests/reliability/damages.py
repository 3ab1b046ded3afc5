"""Damaged files of finished runs: whatever reads the run gives the same figures, or refuses in one line."""

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

VALUES: dict[str, Any] = {
    "null": None,
    "text": "x",
    "empty list": [],
    "list": [1],
    "empty mapping": {},
    "mapping": {"x": {"y": None}},
    "nested lists": [[[]]],
    "nan": math.nan,
    "infinity": math.inf,
    "negative": -1,
    "true": True,
    "zero": 0,
    "huge": 10**30,
}
"""JSON of other kinds, or of other sizes, than what stood there."""


class Damage(NamedTuple):
    """What is done to a file."""

    what: str
    do: Callable[[], object]


def of_file(path: Path) -> Iterator[Damage]:
    """Ways in which disks, archives and editors leave a file."""
    content = path.read_bytes()

    def written(what: str, data: bytes) -> Damage:
        return Damage(what, lambda: path.write_bytes(data))

    def replaced(what: str, make: Callable[[], object]) -> Damage:
        return Damage(what, lambda: (path.unlink(), make()))

    yield Damage("gone", path.unlink)
    yield written("empty", b"")
    yield written("half", content[: len(content) // 2])
    yield written("other bytes", b"\xff\x00{[" * 32)
    yield written("zeros", bytes(len(content)))
    yield written("UTF-16", b"\xff\xfe" + content.decode("latin-1").encode("utf-16-le"))
    yield written("nested too deeply", b"[" * 100_000)
    yield written("a number of 5,000 digits", b'{"step": ' + b"9" * 5000 + b"}")
    yield replaced("a folder", path.mkdir)
    yield replaced("a pipe", lambda: os.mkfifo(path))
    yield replaced("a link to nothing", lambda: path.symlink_to("/nowhere/file"))
    yield replaced("a link to itself", lambda: path.symlink_to(path.name))


def of_values(path: Path) -> Iterator[Damage]:
    """Other values in the place of each value of a JSON file, and keys left out."""
    whole = json.loads(path.read_text())

    def written(what: str, values: Any) -> Damage:
        return Damage(what, lambda: path.write_text(json.dumps(values)))

    for name, value in VALUES.items():
        yield written(f"all = {name}", value)
    for trail in _trails(whole):
        key = ".".join(map(str, trail))
        yield written(f"{key} missing", _changed(whole, trail))
        for name, value in VALUES.items():
            yield written(f"{key} = {name}", _changed(whole, trail, value))


def of_digits(path: Path) -> Iterator[Damage]:
    """One digit of each number changed, as by a bit that fell over."""
    text = path.read_text()
    for place, letter in enumerate(text):
        if letter.isdigit():
            other = str(int(letter) ^ 1)
            changed = text[:place] + other + text[place + 1 :]
            yield Damage(
                f"digit {place}: {other}", lambda changed=changed: path.write_text(changed)
            )


def _trails(node: Any, start: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values; of a list only of the first."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node[:1]))
    for key, value in items:
        yield (*start, key)
        if isinstance(value, dict | list):
            yield from _trails(value, (*start, key))


def _changed(whole: Any, trail: tuple[Any, ...], *value: Any) -> Any:
    """A copy with another value at a place, or without it."""
    result = copy.deepcopy(whole)
    node = result
    for key in trail[:-1]:
        node = node[key]
    if value:
        node[trail[-1]] = value[0]
    else:
        node.pop(trail[-1])
    return result
