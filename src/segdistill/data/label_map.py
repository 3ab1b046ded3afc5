"""The declared mapping from ids stored in masks to class numbers, and its error messages."""

import re
from collections.abc import Mapping
from functools import reduce
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
        threshold: Reads masks of two classes by their grey level: values from this one on, 1..255, are
            class 1, lower ones are class 0. It takes the place of `mapping`.
        tolerance: Greatest difference from a declared id at which a grey value is read as that id; for
            colours, in any channel. Below the distance between ids of different classes; the nearest counts.

    Attributes:
        assumed: Whether no mapping was declared, so that ids are class numbers.
        by_colour: Whether the keys of the mapping are colours.
        by_grey: Whether masks are read by their grey level, with a threshold or a tolerance.
        lossless: Whether masks must be stored exactly: no threshold or tolerance is declared.
        entries: Class number of each id in the mapping, 255 where ignored, in ascending order of ids.
        table: Class number of each raw id, uint8; 255 where ignored or undeclared.
        declared: Whether each raw id is in the mapping, or near enough to one that is.

    Raises:
        ValueError: A class is not an integer in `0..num_classes-1`, a raw id is not one in 0..65535 or has two
            classes, the keys mix ids and colours, or a threshold or tolerance does not fit the mapping.

    Example:
        >>> LabelMap({7: 0, 8: 1, 0: None}, num_classes=2).apply(np.array([[7, 8, 0]])).tolist()
        [[0, 1, 255]]
    """

    def __init__(
        self,
        mapping: Mapping[Any, Any] | None,
        num_classes: int,
        official: bool = False,
        threshold: int | None = None,
        tolerance: int = 0,
    ) -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(
                f"{num_classes} classes declared; expected 1 to {MAX_CLASSES} "
                f"({IGNORED} is the ignored id)"
            )
        self.num_classes, self.official = num_classes, official
        if mapping is not None and not isinstance(mapping, Mapping):
            raise ValueError(f"mapping is {mapping!r:.60}; expected {{raw id: class}}")
        self.assumed = mapping is None and threshold is None
        self.by_colour = any(str(raw).startswith("#") for raw in mapping or ())
        self.threshold, self.tolerance = threshold, tolerance
        _check_threshold(threshold, mapping, num_classes)
        _check_tolerance(tolerance, mapping, threshold)
        self.lossless = threshold is None and not tolerance
        self.by_grey = not (self.lossless or self.by_colour)
        size = 2**24 if self.by_colour else 2**16
        self.table = np.full(size, IGNORED, dtype=np.uint8)
        self.declared = np.zeros(size, dtype=bool)
        self.entries: dict[int, int] = {}
        if threshold is not None:
            self.table[:256] = np.arange(256) >= threshold
            self.declared[:256] = True
            return
        if mapping is None:
            mapping = {**{i: i for i in range(num_classes)}, IGNORED: None}
        self.entries = _checked_entries(mapping, num_classes, self.by_colour)
        raw = np.array(list(self.entries), dtype=np.int64)
        self.table[raw] = list(self.entries.values())
        self.declared[raw] = True
        if tolerance:
            self._read_near_values(raw)

    def _read_near_values(self, raw: np.ndarray) -> None:
        """Extend the mapping to the values near each id, each read as the nearest, or the lower of two."""
        shifts, limit = ((16, 8, 0), 255) if self.by_colour else ((0,), self.table.size - 1)
        values = np.stack([(raw >> shift) & limit for shift in shifts], axis=1)
        self._refuse_wide_tolerance(raw, values)
        axes = (limit + 1,) * len(shifts)
        table, declared = self.table.reshape(axes), self.declared.reshape(axes)
        distance = np.full(axes, 255, np.uint8)
        for value, class_id in zip(values, self.entries.values(), strict=True):
            low = np.maximum(value - self.tolerance, 0)
            high = np.minimum(value + self.tolerance, limit) + 1
            box = tuple(slice(*span) for span in zip(low, high, strict=True))
            steps = [
                np.abs(np.arange(*span) - one).astype(np.uint8)
                for span, one in zip(zip(low, high, strict=True), value, strict=True)
            ]
            # In colours the difference in the channel where it is greatest.
            apart = reduce(np.maximum.outer, steps)
            nearer = apart < distance[box]
            distance[box][nearer], table[box][nearer] = apart[nearer], class_id
            declared[box] = True

    def _refuse_wide_tolerance(self, raw: np.ndarray, values: np.ndarray) -> None:
        """Refuse a tolerance that reaches from an id to one of another class."""
        classes = np.array(list(self.entries.values()))
        # Of ids in ascending order the nearest two of different classes are neighbours; colours are few.
        reach = len(raw) if self.by_colour else 2
        for place in range(len(raw) - 1):
            others = slice(place + 1, place + reach)
            apart = np.abs(values[others] - values[place]).max(axis=1)
            apart[classes[others] == classes[place]] = 2 * 65536
            nearest = int(apart.argmin())
            if apart[nearest] <= self.tolerance:
                text = colour_text if self.by_colour else str
                raise ValueError(
                    f"tolerance is {self.tolerance}; expected at most {apart[nearest] - 1}, as "
                    f"{text(int(raw[place]))} and {text(int(raw[place + 1 + nearest]))} are "
                    f"{apart[nearest]} apart. Lower it"
                )

    def apply(self, raw: np.ndarray, source: str = "mask") -> np.ndarray:
        """Class numbers (uint8, 255 ignored) of raw ids; `source` is the file named in errors."""
        if raw.size and (raw.min() < 0 or raw.max() >= self.table.size):
            raise ValueError(
                f"{source}: label ids range from {raw.min()} to {raw.max()}; "
                f"expected 0..{self.table.size - 1}"
            )
        declared, classes = self._looked_up(raw)
        if not declared:
            raise ValueError(self._complaint(raw, source))
        if self.assumed and self.num_classes == 2 and (classes == IGNORED).any():
            self._refuse_black_and_white(classes, source)
        return classes

    def _looked_up(self, raw: np.ndarray) -> tuple[bool, np.ndarray]:
        """Whether all ids are declared, and their classes."""
        if raw.dtype != np.uint8:
            return bool(self.declared.take(raw).all()), self.table.take(raw)
        # Bytes have a table of their own, which takes a third of the time.
        stored = bytearray(raw)
        undeclared = stored.translate(None, bytes(np.flatnonzero(self.declared[:256]).tolist()))
        classes = stored.translate(self.table[:256].tobytes())
        return not undeclared, np.frombuffer(classes, np.uint8).reshape(raw.shape)

    def _refuse_black_and_white(self, classes: np.ndarray, source: str) -> None:
        # Read literally, such a set would silently train on its background only.
        if not (classes == 1).any():
            raise ValueError(
                f"{source}: 255 occurs but 1 does not, with 2 classes and no mapping; expected a "
                "declared meaning of 255. Add mapping {0: 0, 255: 1} for black and white masks, or "
                "{0: 0, 1: 1, 255: null} to ignore 255"
            )

    def expected(self) -> str:
        """What masks may hold, for messages: `0..11, 255`, or `one of its 3 colours`."""
        if self.by_colour:
            return f"one of its {len(self.entries)} colours"
        return _ranges(np.flatnonzero(self.declared))

    def _complaint(self, raw: np.ndarray, source: str) -> str:
        ids = np.unique(raw)
        bad = ids[~self.declared[ids]]
        row, column = (int(axis[0]) for axis in np.nonzero(raw == bad[0]))
        if self.by_colour:
            more = f" and {bad.size - 1} more" if bad.size > 1 else ""
            return (
                f"{source}: colour {colour_text(int(bad[0]))}{more} (first at row {row}, column "
                f"{column}) is not in the mapping; expected {self.expected()}. "
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


def _check_threshold(threshold: int | None, mapping: object, num_classes: int) -> None:
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, int) or not 1 <= threshold <= 255:
        raise ValueError(f"threshold is {threshold!r:.60}; expected a grey level, 1..255, or null")
    if mapping is not None:
        raise ValueError(
            "threshold and mapping are both set; expected one of them. A threshold reads grey levels "
            "below it as class 0 and the others as class 1"
        )
    if num_classes != 2:
        raise ValueError(
            f"threshold is {threshold} with {num_classes} classes; expected 2 classes. For more, "
            "declare a mapping and a tolerance"
        )


def _check_tolerance(tolerance: int, mapping: object, threshold: int | None) -> None:
    if isinstance(tolerance, bool) or not isinstance(tolerance, int) or not 0 <= tolerance <= 127:
        raise ValueError(f"tolerance is {tolerance!r:.60}; expected 0..127 grey levels")
    if tolerance and (mapping is None or threshold is not None):
        raise ValueError(
            f"tolerance is {tolerance} without a mapping; expected the ids that values are compared "
            "with. Declare them as `mapping`"
        )


def _checked_entries(
    mapping: Mapping[Any, Any], num_classes: int, by_colour: bool
) -> dict[int, int]:
    """The class of each raw id, in ascending order of ids."""
    entries: dict[int, int] = {}
    for raw, target in mapping.items():
        raw_id, class_id = _checked_entry(raw, target, num_classes, by_colour)
        if entries.setdefault(raw_id, class_id) != class_id:
            name = colour_text(raw_id) if by_colour else raw_id
            raise ValueError(
                f"mapping assigns {name} to class {_class_text(entries[raw_id])} and to {_class_text(class_id)}; "
                "expected one of them. Remove the other entry"
            )
    return dict(sorted(entries.items()))


def _class_text(class_id: int) -> str:
    return "null" if class_id == IGNORED else str(class_id)


def _whole(value: Any) -> int:
    """A number that YAML may hold as text or as 1.0; anything else is a ValueError or TypeError."""
    number = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value != number):
        raise ValueError
    return number


def _checked_entry(raw: Any, target: Any, num_classes: int, by_colour: bool) -> tuple[int, int]:
    if by_colour and not re.fullmatch("#[0-9a-fA-F]{6}", str(raw)):
        raise ValueError(
            f'mapping entry {raw!r} is not a colour; expected "#rrggbb", such as "#804080", as other '
            "entries are colours"
        )
    # A recipe's YAML may hold the keys of a mapping as text.
    try:
        raw_id = int(str(raw).lstrip("#"), 16) if by_colour else _whole(raw)
        class_id = IGNORED if target is None else _whole(target)
    except (TypeError, ValueError, OverflowError):
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
