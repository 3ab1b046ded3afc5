"""Proposes a mapping for the ids or colours in a set of masks."""

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

    def yaml(self, declared: int | None) -> str:
        """The lines to paste below `data: {options: ..}`, with `classes` if the declared number differs."""
        options: dict[str, Any] = {"classes": self.classes} if declared != self.classes else {}
        if self.mapping is not None:
            options["mapping"] = self.mapping
        return yaml.safe_dump(options, sort_keys=False, default_flow_style=None, width=100).rstrip()


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
    undeclared = {i: o for found in surveys for i, o in found.undeclared.items()}
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
    stray = all(seen.images <= few for seen in undeclared.values())
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
            return [Proposal("in the order of the ids", {**_numbered(values), **rest}, len(values))]
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
        reason = "black and white masks" if black_and_white else "reorder them like your classes"
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


def _declare_rest(label_map: LabelMap, undeclared: Iterable[int]) -> Proposal:
    """The declared mapping, extended to ignore the ids it lacks."""

    def key(raw: int) -> Any:
        return colour_text(raw) if label_map.by_colour else raw

    raw = np.flatnonzero(label_map.declared).tolist()
    classes = label_map.table[raw].tolist()
    declared = {key(i): None if c == IGNORED else c for i, c in zip(raw, classes, strict=True)}
    rest = {key(i): None for i in sorted(undeclared)}
    reason = "as declared, with the missing ids ignored"
    return Proposal(reason, {**declared, **rest}, label_map.num_classes)


def _numbered(values: Iterable[Any]) -> dict[Any, int | None]:
    return {value: number for number, value in enumerate(values)}


def _is_cityscapes(plain: list[int], classes: int | None) -> bool:
    """At least three ids beyond the train ids, since a single one may be a mistake in train id masks."""
    inside = bool(plain) and plain[-1] <= 33
    if classes is None:
        return inside and set(plain) >= {7, 8, 11, 21, 23}
    return inside and classes == 19 and sum(i > 18 for i in plain) >= 3
