"""Proposes a mapping for the ids or colours in a set of masks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import yaml

from segdistill.data.dataset import generated_palette
from segdistill.data.label_map import IGNORED, LabelMap, colour_text
from segdistill.data.published.camvid import CLASSES as CAMVID
from segdistill.data.published.cityscapes import CLASSES as CITYSCAPES
from segdistill.data.published.cityscapes import LABEL_IDS
from segdistill.run.auditing.noise import (
    RIM,
    distances,
    drawn_ids,
    is_light,
    resembles_noise,
    tolerance_for,
)
from segdistill.run.auditing.survey import Survey, palettes_differ

Colour = tuple[int, int, int]

_TABLES: dict[str, list[Colour]] = {
    "CamVid": list(CAMVID.values()),
    "Cityscapes": [colour for _, colour in CITYSCAPES.values()],
    "Pascal VOC": [(0, 0, 0), *generated_palette(20)],
}
_GUESS = "the order is a guess: check that each id is that class"
_NOISE = "few ids and noise around them, as compression leaves it"
_BITS = "white of 1 bit (id 1) among white of 8 bits (255)"
_MOST_GUESSED = 20
"""More ids than this are no classes that somebody forgot to declare."""
_MOST = 64
"""More colours than this are not a hand-made table."""


class Proposal(NamedTuple):
    """A mapping and why it may fit.

    Attributes:
        reason: What was recognised, in a few words.
        mapping: Raw id, or colour as text, to class, or to None to ignore it. None as a whole: leave
            `mapping` out.
        classes: Its number of classes.
        threshold: Option `threshold`, in place of a mapping.
        tolerance: Option `tolerance`.
    """

    reason: str
    mapping: dict[Any, int | None] | None
    classes: int
    threshold: int | None = None
    tolerance: int = 0

    def yaml(self, declared: Sequence[str] = ()) -> str:
        """The lines to paste below `data: {options: ..}`, each id with the name of its class.

        Args:
            declared: Names of the declared classes; `classes` is among the lines where their number differs.
        """
        lines = [f"classes: {self.classes}"] if len(declared) != self.classes else []
        if self.threshold is not None:
            lines += ["mapping: null", f"threshold: {self.threshold}"]
        if self.tolerance:
            lines.append(f"tolerance: {self.tolerance}")
        if self.mapping is not None:
            names = declared if len(declared) == self.classes else ()
            lines.append("mapping:")
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
    pixels, undeclared = Counter[int](), Counter[int]()
    for found in surveys:
        pixels.update({i: seen.pixels for i, seen in found.ids.items()})
        # With the number of images that hold each.
        undeclared.update({i: seen.images for i, seen in found.undeclared.items()})
    colours = {c for found in surveys for c in found.colours}
    by_colour = label_map is not None and label_map.by_colour
    in_colour = any(found.in_colour for found in surveys)
    if not by_colour and (not pixels or in_colour or palettes_differ(surveys)):
        return propose_colours(colours, classes, palette)
    if not by_colour and (one := _white_bits(surveys, pixels, label_map)):
        return [one]
    if label_map is None:
        return propose(pixels, classes, pixels)
    lossy = any(found.lossy for found in surveys)
    unread = label_map.assumed and classes == 2 and _unclear_white(pixels)
    if not undeclared and not unread and not lossy:
        return []
    declared = not by_colour and not label_map.assumed
    if declared and (near := _near(label_map, undeclared, pixels, lossy)):
        return [near]
    if not label_map.lossless:
        return []
    few = max(1, sum(found.samples for found in surveys) // 10)
    recognised = (
        propose_colours(colours, classes, palette)
        if by_colour
        else propose(pixels, classes, pixels, lossy)
    )
    if without_id(label_map):
        added = _with_missing_class(label_map, undeclared, pixels)
        occurring = colours if by_colour else set(pixels)
        if added is not None and _reads_several(added, label_map, occurring):
            return [added]
        if not by_colour:  # what is light is noise, whatever was declared for it
            occurring = {i for i in occurring if 20 * pixels[i] > pixels.total()}
        unsure = {_GUESS, _NOISE}
        return [p for p in recognised if p.reason not in unsure or _agrees(p, label_map, occurring)]
    stray = all(images <= few for images in undeclared.values())
    noisy = any(p.reason == _NOISE for p in recognised)
    if (
        undeclared
        and not unread
        and (not recognised or (stray and not label_map.assumed and not noisy))
    ):
        # Ids beyond 8 bits number instances: ignoring them would ignore the objects.
        ignorable = len(undeclared) <= _MOST and (by_colour or max(undeclared) <= IGNORED)
        return [_declare_rest(label_map, undeclared)] if ignorable else []
    return recognised


def _unclear_white(pixels: Mapping[int, int]) -> bool:
    """Whether 255 is hardly the ignored id of two classes, numbered 0 and 1."""
    return pixels.get(IGNORED, 0) > RIM * pixels.get(1, 0)


def _white_bits(
    surveys: Sequence[Survey], pixels: Mapping[int, int], label_map: LabelMap | None
) -> Proposal | None:
    """White of one bit (id 1) read as the 255 of the other masks, where they hold no 1."""
    grey = {value for found in surveys for value in found.grey}
    if 1 in grey or IGNORED not in grey or not any(found.bits for found in surveys):
        return None
    if label_map is not None and not label_map.assumed:
        white = label_map.entries.get(IGNORED, IGNORED)
        if white == IGNORED or 1 in label_map.entries or not label_map.lossless:
            return None
        mapping: dict[Any, int | None] = {**_declared(label_map), 1: white}
        return Proposal(_BITS, dict(sorted(mapping.items())), label_map.num_classes)
    if set(pixels) == {0, 1, IGNORED}:
        return Proposal(_BITS, {0: 0, 1: 1, IGNORED: 1}, 2)
    return None


def _near(
    label_map: LabelMap, undeclared: Mapping[int, int], pixels: Mapping[int, int], lossy: bool
) -> Proposal | None:
    """The declared mapping with a tolerance, where the undeclared values are noise around its ids."""
    ids = list(label_map.entries)
    values = sorted(undeclared)
    if len(ids) < 2 or without_id(label_map) or not (values or lossy) or max([0, *values]) > 255:
        return None
    apart, _ = distances(np.array(values, np.int64), ids)
    # A single value far from any id may be a class that was forgotten.
    plausible = apart.max(initial=0) <= 16 or len(values) >= 8
    tolerance = tolerance_for(values, ids)
    if tolerance < 2 or not plausible or not is_light(values, ids, pixels):
        return None
    return Proposal(
        "as declared, with near values read as the nearest id",
        _declared(label_map),
        label_map.num_classes,
        tolerance=tolerance,
    )


def propose(
    ids: Iterable[int],
    classes: int | None,
    pixels: Mapping[int, int] | None = None,
    lossy: bool = False,
) -> list[Proposal]:
    """Mappings for single-channel ids, the likeliest first; none if nothing is recognised.

    Args:
        ids: Raw ids that occur.
        classes: Number of declared classes; None: not declared.
        pixels: Number of pixels of each id: what is light beside its neighbours is noise, never a class.
            None: all count the same.
        lossy: Whether masks were compressed, so that only a threshold or a tolerance can read them.
    """
    everything = sorted(ids)
    weights = dict.fromkeys(everything, 1) if pixels is None else pixels
    noisy = _propose_for_noise(everything, classes, weights, lossy)
    return noisy if noisy or lossy else _propose_for_ids(everything, classes, weights)


def _propose_for_ids(
    everything: list[int], classes: int | None, weights: Mapping[int, int]
) -> list[Proposal]:
    """Mappings for ids without noise."""
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
        both = [
            Proposal("if 0 means unlabelled", {0: None, **shifted, **void}, count),
            Proposal(f"if {count} means unlabelled", {**same, count: None, **void}, count),
        ]
        return both[::-1] if 100 * weights[count] < weights.get(0, 0) else both
    if any(resembles_noise(value, weights) for value in everything):
        return []
    for values, rest in ((everything, {}), (plain, void)):
        if len(values) == count or (not known and len(values) <= _MOST_GUESSED):
            return [Proposal(_GUESS, {**_numbered(values), **rest}, len(values))]
    return []


def _propose_for_noise(
    ids: list[int], classes: int | None, pixels: Mapping[int, int], lossy: bool
) -> list[Proposal]:
    """How to read masks whose other values are noise; [] if there is none."""
    clean = lossy and len(ids) == 2 and ids[-1] - ids[0] > 64 and classes in (None, 2)
    drawn = ids if clean else drawn_ids(pixels, classes)
    rest = [value for value in ids if value not in drawn]
    # Ids that are class numbers are not noise, but for 1 beside many 255.
    numbers = classes is not None and set(ids) <= {*range(classes), IGNORED}
    if not drawn or (numbers and not (classes == 2 and _unclear_white(pixels))):
        return []
    if len(drawn) == 2:
        threshold = (drawn[0] + drawn[1] + 1) // 2
        proposed = [Proposal(_NOISE, None, 2, threshold=threshold)]
        if numbers and 1 in ids and not lossy:
            ignoring: dict[Any, int | None] = {0: 0, 1: 1, IGNORED: None}
            proposed.append(Proposal("if 255 is to be ignored", ignoring, 2))
        return proposed
    tolerance = tolerance_for(rest, drawn)
    if not tolerance:
        return []
    return [Proposal(_NOISE, _numbered(drawn), len(drawn), tolerance=tolerance)]


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


def _with_missing_class(
    label_map: LabelMap, undeclared: Iterable[int], pixels: Mapping[int, int]
) -> Proposal | None:
    """The declared mapping, extended by the only undeclared id for the only class without one; else None."""
    missing, rest = without_id(label_map), sorted(undeclared)
    ignored = [i for i in rest if i == IGNORED and not label_map.by_colour]
    others = [i for i in rest if i not in ignored]
    if len(missing) != 1 or len(others) != 1:
        return None
    if not label_map.by_colour and resembles_noise(others[0], pixels):
        return None
    added: dict[Any, int | None] = {_key(others[0], label_map): missing[0]}
    mapping = {**_declared(label_map), **added, **dict.fromkeys(ignored)}
    reason = "as declared, with the only undeclared id for the only class without one"
    return Proposal(reason, mapping, label_map.num_classes)


def _reads_several(proposal: Proposal, label_map: LabelMap, occurring: Iterable[int]) -> bool:
    """Whether a proposal gives the ids that occur more than one class."""
    mapping = proposal.mapping or {}
    return len({mapping.get(_key(one, label_map)) for one in occurring} - {None}) > 1


def _agrees(proposal: Proposal, label_map: LabelMap, found: Iterable[int]) -> bool:
    """Whether a proposal keeps the declared class of every id that occurs."""
    mapping, declared = proposal.mapping or {}, _declared(label_map)
    if proposal.threshold is not None:
        mapping = {key: int(key >= proposal.threshold) for key in declared}
    keys = {_key(i, label_map) for i in found} & declared.keys()
    return all(mapping.get(key, key) == declared[key] for key in keys)


def _declared(label_map: LabelMap) -> dict[Any, int | None]:
    return {_key(i, label_map): None if c == IGNORED else c for i, c in label_map.entries.items()}


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
