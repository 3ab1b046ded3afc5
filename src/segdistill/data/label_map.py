"""The declared mapping from ids stored in masks to class numbers, and its error messages."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from segdistill.labels import IGNORED as IGNORED

MAX_CLASSES = IGNORED


class LabelMap:
    """The one declared mapping from the ids stored in masks to class numbers.

    Args:
        mapping: `{raw id: class}`; class None or 255 means ignored. Raw ids are 0..65535.
            Without a mapping, ids `0..num_classes-1` are class numbers and 255 is ignored
            (but black and white masks with two classes are refused). For masks in colour every key
            is a colour as text, `"#804080"`, which is the raw id 0x804080.
        num_classes: Number of classes, 1..255.
        official: Whether the mapping belongs to a published data set, so the user cannot change it.

    Attributes:
        assumed: Whether no mapping was declared, so that ids are class numbers.
        by_colour: Whether the keys of the mapping are colours.
        table: Class number of each raw id, uint8; 255 where ignored or undeclared.
        declared: Whether each raw id is in the mapping.

    Raises:
        ValueError: A class is outside `0..num_classes-1`, a raw id is outside 0..65535, or the keys
            mix ids and colours.

    Example:
        >>> LabelMap({7: 0, 8: 1, 0: None}, num_classes=2).apply(np.array([[7, 8, 0]])).tolist()
        [[0, 1, 255]]
    """

    def __init__(
        self,
        mapping: Mapping[Any, int | None] | None,
        num_classes: int,
        official: bool = False,
    ) -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(
                f"{num_classes} classes declared; expected 1 to {MAX_CLASSES} "
                f"({IGNORED} is the ignored id)"
            )
        self.num_classes, self.official = num_classes, official
        if mapping is not None and not isinstance(mapping, Mapping):
            raise ValueError(f"mapping is {mapping!r:.60}; expected {{raw id: class}}")
        self.assumed = mapping is None
        self.by_colour = any(str(raw).startswith("#") for raw in mapping or ())
        size = 2**24 if self.by_colour else 2**16
        self.table = np.full(size, IGNORED, dtype=np.uint8)
        self.declared = np.zeros(size, dtype=bool)
        if mapping is None:
            mapping = {**{i: i for i in range(num_classes)}, IGNORED: None}
        for raw, target in mapping.items():
            raw_id, class_id = _checked_entry(raw, target, num_classes, self.by_colour)
            self.table[raw_id] = class_id
            self.declared[raw_id] = True

    def apply(self, raw: np.ndarray, source: str = "mask") -> np.ndarray:
        """Class numbers (uint8, 255 ignored) of raw ids; `source` is the file named in errors."""
        if raw.size and (raw.min() < 0 or raw.max() >= self.table.size):
            raise ValueError(
                f"{source}: label ids range from {raw.min()} to {raw.max()}; "
                f"expected 0..{self.table.size - 1}"
            )
        if not self.declared.take(raw).all():
            raise ValueError(self._complaint(raw, source))
        classes = self.table.take(raw)
        if self.assumed and self.num_classes == 2 and (classes == IGNORED).any():
            self._refuse_black_and_white(classes, source)
        return classes

    def _refuse_black_and_white(self, classes: np.ndarray, source: str) -> None:
        # Read literally, such a set would silently train on its background only.
        if not (classes == 1).any():
            raise ValueError(
                f"{source}: 255 occurs but 1 does not, with 2 classes and no mapping; expected a "
                "declared meaning of 255. Add mapping {0: 0, 255: 1} for black and white masks, or "
                "{0: 0, 1: 1, 255: null} to ignore 255"
            )

    def _complaint(self, raw: np.ndarray, source: str) -> str:
        ids = np.unique(raw)
        bad = ids[~self.declared[ids]]
        row, column = (int(axis[0]) for axis in np.nonzero(raw == bad[0]))
        if self.by_colour:
            more = f" and {bad.size - 1} more" if bad.size > 1 else ""
            return (
                f"{source}: colour {colour_text(int(bad[0]))}{more} (first at row {row}, column "
                f"{column}) is not in the mapping; expected one of its {self.declared.sum()} colours. "
                "Add it to `mapping` with its class number, or null to ignore it"
            )
        known = np.flatnonzero(self.declared)
        if bad[-1] > IGNORED >= known.max(initial=0):
            return (
                f"{source}: label id is {bad[-1]}; expected {_ranges(known)}. "
                "Ids above 8 bits suggest an instance map: use the class map"
            )
        more = f" and {bad.size - 1} more" if bad.size > 1 else ""
        if self.official:
            return (
                f"{source}: label id {bad[0]}{more} (first at row {row}, column {column}) is not in "
                f"this data set; expected {_ranges(known)}. Use the masks as published, "
                "or read your own as data `folder` with a mapping"
            )
        hint = ""
        if ids[0] >= 1 and bad[0] == known[known != IGNORED].max(initial=-1) + 1:
            hint = " Ids in this file start at 1. If classes are numbered from 1, map {1: 0, 2: 1, ..}."
        elif bad.tolist() == [self.num_classes]:
            hint = " If 0 means unlabelled, map {0: null, 1: 0, 2: 1, ..}."
        return (
            f"{source}: label id {bad[0]}{more} (first at row {row}, column {column}) is not "
            f"in the mapping; expected {_ranges(known)}. "
            f"Add it to `mapping` with its class number, or null to ignore it.{hint}"
        )


def _checked_entry(
    raw: int | str, target: int | None, num_classes: int, by_colour: bool
) -> tuple[int, int]:
    if by_colour and not re.fullmatch("#[0-9a-fA-F]{6}", str(raw)):
        raise ValueError(
            f'mapping entry {raw!r} is not a colour; expected "#rrggbb", such as "#804080", as other '
            "entries are colours"
        )
    # A recipe's YAML may hold the keys of a mapping as text.
    try:
        raw_id = int(str(raw).lstrip("#"), 16) if by_colour else int(raw)
        class_id = IGNORED if target is None else int(target)
    except (TypeError, ValueError):
        raise ValueError(
            f"mapping entry is {raw!r}: {target!r}; "
            "expected integers `raw id: class`, or class null to ignore the id"
        ) from None
    if not by_colour and not 0 <= raw_id <= 65535:
        raise ValueError(f"a raw id in mapping is {raw_id}; expected 0..65535")
    if class_id != IGNORED and not 0 <= class_id < num_classes:
        raise ValueError(
            f"mapping assigns id {raw} to class {class_id}; expected 0..{num_classes - 1}, "
            f"or null to ignore it"
        )
    return raw_id, class_id


def _ranges(ids: np.ndarray) -> str:
    """`0..11, 255` for the sorted ids 0, 1, .. 11, 255."""
    if not ids.size:
        return "no id"
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    shown = [str(r[0]) if r.size == 1 else f"{r[0]}..{r[-1]}" for r in runs[:8]]
    return ", ".join(shown) + (", .." if len(runs) > 8 else "")


def colour_text(code: int) -> str:
    """`#804080`, as written in a mapping of colours, for the raw id 0x804080."""
    return f"#{code:06x}"
