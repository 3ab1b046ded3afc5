"""Proposes a mapping for the ids or colours in a set of masks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import yaml

from segdistill.data.dataset import generated_palette
from segdistill.data.label_map import IGNORED, LabelMap, colour_text
from segdistill.data.published.camvid import CLASSES as CAMVID
from segdistill.data.published.cityscapes import CLASSES as CITYSCAPES
from segdistill.data.published.cityscapes import LABEL_IDS
from segdistill.run.auditing.survey import Survey

Colour = tuple[int, int, int]

_TABLES: dict[str, list[Colour]] = {
    "CamVid": list(CAMVID.values()),
    "Cityscapes": [colour for _, colour in CITYSCAPES.values()],
    "Pascal VOC": [(0, 0, 0), *generated_palette(20)],
}
_GUESS = "the order is a guess: check that each id is that class"
_MOST = 64
"""More colours than this are not a hand-made table."""


class Proposal(NamedTuple):
    """A mapping and why it may fit.

    Attributes:
        reason: What was recognised, in a few words.
        mapping: Raw id, or colour as text, to class, or to None to ignore it. None as a whole: leave
            `mapping` out.
        classes: Its number of classes.
    """

    reason: str
    mapping: dict[Any, int | None] | None
    classes: int

    def yaml(self, declared: Sequence[str] = ()) -> str:
        """The lines to paste below `data: {options: ..}`, each id with the name of its class.

        Args:
            declared: Names of the declared classes; `classes` is among the lines where their number differs.
        """
        lines = [f"classes: {self.classes}"] if len(declared) != self.classes else []
        if self.mapping is not None:
            lines.append("mapping:")
            names = declared if not lines[:-1] else ()
            lines += [_entry(raw, number, names) for raw, number in self.mapping.items()]
        return "\n".join(lines)


def _entry(raw: Any, number: int | None, names: Sequence[str]) -> str:
    """`50: 1  # building`, as a line below `mapping:`."""
    entry = yaml.safe_dump({raw: number}).strip()
    name = "ignored" if number is None else names[number] if names else ""
    return f"  {entry}" + (f"  # {' '.join(name.split())}" if name else "")


def proposals(
    surveys: Sequence[Survey], classes: int | None, palette: Sequence[Colour] | None = None
) -> list[Proposal]:
    """Mappings that fit what the splits hold, the likeliest first; none if the declared one fits.

    Args:
        surveys: What each split holds.
        classes: Number of declared classes; None: not declared.
        palette: The declared colour of each class.
    """
    label_map = surveys[0].label_map
    ids = {i for found in surveys for i in found.ids}
    colours = {c for found in surveys for c in found.colours}
    undeclared = Counter[int]()  # with the number of images that hold each
    for found in surveys:
        undeclared.update({i: seen.images for i, seen in found.undeclared.items()})
    by_colour = label_map is not None and label_map.by_colour
    if not by_colour and (not ids or any(found.palettes_differ for found in surveys)):
        return propose_colours(colours, classes, palette)
    if label_map is None:
        return propose(ids, classes)
    unread = label_map.assumed and classes == 2 and ids == {0, IGNORED}
    if not undeclared and not unread:
        return []
    few = max(1, sum(found.samples for found in surveys) // 10)
    recognised = propose_colours(colours, classes, palette) if by_colour else propose(ids, classes)
    if without_id(label_map):
        added = _with_missing_class(label_map, undeclared)
        occurring = colours if by_colour else ids
        sound = [p for p in recognised if p.reason != _GUESS or _agrees(p, label_map, occurring)]
        return [added] if added else sound
    stray = all(images <= few for images in undeclared.values())
    if undeclared and (not recognised or (stray and not label_map.assumed)):
        # Ids beyond 8 bits number instances: ignoring them would ignore the objects.
        ignorable = len(undeclared) <= _MOST and (by_colour or max(undeclared) <= IGNORED)
        return [_declare_rest(label_map, undeclared)] if ignorable else []
    return recognised


def propose(ids: Iterable[int], classes: int | None) -> list[Proposal]:
    """Mappings for single-channel ids, the likeliest first; none if nothing is recognised.

    Args:
        ids: Raw ids that occur.
        classes: Number of declared classes; None: not declared.
    """
    everything = sorted(ids)
    plain = [i for i in everything if i != IGNORED]
    void: dict[Any, int | None] = {IGNORED: None} if IGNORED in everything else {}
    if everything == [0, IGNORED] and classes in (None, 2):
        return [Proposal("black and white masks", {0: 0, IGNORED: 1}, 2)]
    if _is_cityscapes(plain, classes):
        table = {i: LABEL_IDS.index(i) if i in LABEL_IDS else None for i in range(34)}
        return [Proposal("Cityscapes label ids", {**table, **void}, 19)]
    if not plain:
        return []
    last = plain[-1]
    count = classes or (last if plain[0] == 1 else last + 1)
    known = classes is not None
    if last < count and (known or len(plain) == count):
        return [Proposal("ids are class numbers", None, count)]
    shifted = {i: i - 1 for i in range(1, count + 1)}
    if last == count and plain[0] == 1 and (known or len(plain) == count):
        return [Proposal("ids are numbered from 1", {**shifted, **void}, count)]
    if last == count:
        same: dict[Any, int | None] = {i: i for i in range(count)}
        return [
            Proposal("if 0 means unlabelled", {0: None, **shifted, **void}, count),
            Proposal(f"if {count} means unlabelled", {**same, count: None, **void}, count),
        ]
    for values, rest in ((everything, {}), (plain, void)):
        if len(values) == count or (not known and len(values) < IGNORED):
            return [Proposal(_GUESS, {**_numbered(values), **rest}, len(values))]
    return []


def propose_colours(
    colours: Iterable[int], classes: int | None, palette: Sequence[Colour] | None = None
) -> list[Proposal]:
    """Mappings for colours 0xrrggbb; none if there are too many, or none is recognised.

    Args:
        colours: Colours that occur.
        classes: Number of declared classes; None: not declared.
        palette: The declared colour of each class.
    """
    occurring = sorted(colours)
    if not occurring or len(occurring) > _MOST:
        return []
    declared = {"the declared palette": list(palette)} if palette else {}
    for name, table in {**declared, **_TABLES}.items():
        codes = [(r << 16) + (g << 8) + b for r, g, b in table]
        others = [c for c in occurring if c not in codes]
        common = len(occurring) - len(others)
        fits = common > 0 if name in declared else len(others) < common > 2
        if fits and (classes == len(codes) or (classes is None and 2 * common > len(codes))):
            numbered: dict[Any, int | None] = _numbered(map(colour_text, codes))
            mapping = {**numbered, **{colour_text(c): None for c in others}}
            return [Proposal(f"colours of {name}", mapping, len(codes))]
    texts = [colour_text(c) for c in occurring]
    if classes in (None, len(occurring)):
        black_and_white = occurring == [0, 0xFFFFFF]
        reason = "black and white masks" if black_and_white else _GUESS.replace("id", "colour")
        return [Proposal(reason, _numbered(texts), len(occurring))]
    if occurring[0] == 0 and classes == len(occurring) - 1:
        return [
            Proposal(
                "if black means unlabelled; reorder the others like your classes",
                {texts[0]: None, **_numbered(texts[1:])},
                classes,
            )
        ]
    return []


def without_id(label_map: LabelMap) -> list[int]:
    """The classes that have no id in a mapping, and so can never be learnt."""
    known = set(label_map.table[label_map.declared].tolist())
    return [number for number in range(label_map.num_classes) if number not in known]


def _declare_rest(label_map: LabelMap, undeclared: Iterable[int]) -> Proposal:
    """The declared mapping, extended to ignore the ids it lacks."""
    rest: dict[Any, int | None] = {_key(i, label_map): None for i in sorted(undeclared)}
    reason = "as declared, with the missing ids ignored"
    return Proposal(reason, {**_declared(label_map), **rest}, label_map.num_classes)


def _with_missing_class(label_map: LabelMap, undeclared: Iterable[int]) -> Proposal | None:
    """The declared mapping, extended by the only undeclared id for the only class without one; else None."""
    missing, rest = without_id(label_map), sorted(undeclared)
    ignored = [i for i in rest if i == IGNORED and not label_map.by_colour]
    others = [i for i in rest if i not in ignored]
    if len(missing) != 1 or len(others) != 1:
        return None
    added: dict[Any, int | None] = {_key(others[0], label_map): missing[0]}
    mapping = {**_declared(label_map), **added, **dict.fromkeys(ignored)}
    reason = "as declared, with the only undeclared id for the only class without one"
    return Proposal(reason, mapping, label_map.num_classes)


def _agrees(proposal: Proposal, label_map: LabelMap, found: Iterable[int]) -> bool:
    """Whether a proposal keeps the declared class of every id that occurs."""
    mapping, declared = proposal.mapping or {}, _declared(label_map)
    keys = {_key(i, label_map) for i in found} & declared.keys()
    return all(mapping.get(key, key) == declared[key] for key in keys)


def _declared(label_map: LabelMap) -> dict[Any, int | None]:
    raw = np.flatnonzero(label_map.declared).tolist()
    classes = label_map.table[raw].tolist()
    return {
        _key(i, label_map): None if c == IGNORED else c for i, c in zip(raw, classes, strict=True)
    }


def _key(raw: int, label_map: LabelMap) -> Any:
    return colour_text(raw) if label_map.by_colour else raw


def _numbered(values: Iterable[Any]) -> dict[Any, int | None]:
    return {value: number for number, value in enumerate(values)}


def _is_cityscapes(plain: list[int], classes: int | None) -> bool:
    """At least three ids beyond the train ids, since a single one may be a mistake in train id masks."""
    inside = bool(plain) and plain[-1] <= 33
    if classes is None:
        return inside and set(plain) >= {7, 8, 11, 21, 23}
    return inside and classes == 19 and sum(i > 18 for i in plain) >= 3
