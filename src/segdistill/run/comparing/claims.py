"""The claims that a comparison tests, registered before anything is trained."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segdistill.config import Recipe
from segdistill.names import unknown
from segdistill.run.comparing.entries import Entry
from segdistill.run.comparing.finished import known_entries
from segdistill.run.contents import read_json
from segdistill.run.folder import write_json

_log = logging.getLogger(__name__)
FILE = "claims.json"


def claims_of(recipe: Recipe, entries: Sequence[Entry]) -> list[list[str]]:
    """A recipe's contrasts as pairs of labels.

    A contrast may name what the recipe compares by default and not this time: the claim stays registered, and
    waits.

    Args:
        recipe: Its `contrasts` name entries by their names or labels; `control` is also the first control,
            whatever is compared this time.
        entries: What is compared.

    Raises:
        ValueError: A contrast is not a pair of different entries, or stands twice.
    """
    if not recipe.contrasts:
        return []
    known = known_entries(recipe, entries)
    pairs = [
        _pair(contrast, f"contrasts.{n}", known) for n, contrast in enumerate(recipe.contrasts)
    ]
    for number, pair in enumerate(pairs):
        if {*pair} in [{*other} for other in pairs[:number]]:
            raise ValueError(
                f"contrasts.{number} is [{', '.join(pair)}], which stands twice. Remove one of them"
            )
    return pairs


def _pair(contrast: Sequence[str], key: str, entries: Sequence[Entry]) -> list[str]:
    if len(contrast) != 2:
        raise ValueError(
            f"{key} is [{', '.join(contrast)}]; expected two entries of the comparison, such as [idd, kd]"
        )
    pair = [_label(name, key, entries) for name in contrast]
    if pair[0] == pair[1]:
        raise ValueError(f"{key} is [{', '.join(contrast)}]; expected two different entries")
    return pair


def _label(name: str, key: str, entries: Sequence[Entry]) -> str:
    found = [entry.label for entry in entries if name in (entry.label, entry.name)]
    if not found and name == "control":
        found = [entry.label for entry in entries if entry.role == "control"]
    if not found:
        known = {text for entry in entries for text in (entry.name, entry.label)}
        raise ValueError(f"{key}: {unknown('entry of the comparison', name, known)}")
    return found[0]


def register(
    base: Path, pairs: Sequence[Sequence[str]], on: str | None, finished: Mapping[str, int]
) -> None:
    """Write the claims beside the runs, with the number of finished runs that they could have been chosen by.

    Claims that were registered before stay as they are. For a claim that is added, the finished runs of its two
    rows count, if both have some: before that, nobody can have seen their difference. Where a claim is dropped
    or made on another set, all finished runs count. The log then says so, since claims that are chosen after a
    look at results prove nothing.

    Args:
        base: Folder of the comparison.
        pairs: The claims, as pairs of labels; without any, nothing is registered.
        on: Set that they are made on; None: the evaluation split.
        finished: Number of runs that are finished already, by label.
    """
    new = [list(pair) for pair in pairs]
    before = registered(base) or {"contrasts": [], "on": on, "finished_before": 0}
    old, moved = before["contrasts"], before.get("on") != on
    if old == new and not moved:
        return
    if moved or any(pair not in new for pair in old):
        seen = sum(finished.values())
    else:
        seen = _seen([pair for pair in new if pair not in old], finished)
    if seen:
        _log.warning(
            "claims are registered after %d run%s of their rows finished", seen, "s" * (seen != 1)
        )
    seen = max(seen, before["finished_before"])
    write_json(base / FILE, {"contrasts": new, "on": on, "finished_before": seen})


def _seen(pairs: Sequence[Sequence[str]], finished: Mapping[str, int]) -> int:
    """Finished runs of the rows of those pairs whose difference can have been looked at."""
    rows = {label for pair in pairs if all(map(finished.get, pair)) for label in pair}
    return sum(finished[label] for label in rows)


def registered(base: Path) -> dict[str, Any] | None:
    """What `register` wrote; None without claims.

    Raises:
        ValueError: The file is damaged.
    """
    return read_json(base / FILE)
