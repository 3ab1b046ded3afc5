"""Problems with the files of a recipe's splits, and warnings about them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import signature
from itertools import zip_longest
from typing import Any

from segdistill.config import DataConfig, Recipe
from segdistill.data.dataset import list_names
from segdistill.data.folder import Folder, class_names, folder_pairs
from segdistill.data.label_map import IGNORED, MAX_CLASSES, LabelMap, colour_text
from segdistill.data.orientation import Orientation, check_orientation, unclear_orientations
from segdistill.distillation.method import Method
from segdistill.names import fitting
from segdistill.run.auditing.noise import RIM
from segdistill.run.auditing.proposal import without_id
from segdistill.run.auditing.survey import Survey, palettes_differ, shared_images, undeclared_line
from segdistill.run.identity.seen import judged_shared
from segdistill.run.opening import open_split, split_options

_FEW = 10
"""Fewer evaluation images than this leave the mIoU to chance."""
_STRETCH = 1.5
"""A greater change of the aspect ratio is taken for a mistake."""
_SHOWN = 8
"""Problems of one kind that are kept before `n more problems of this kind`."""


@dataclass
class Findings:
    """Problems to fix, and warnings."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_problems(self, lines: Sequence[str]) -> None:
        """Add problems: one line per cause, without repeats, and only the first of many causes."""
        new = by_cause([line for line in dict.fromkeys(lines) if line not in self.problems])
        self.problems += new[:_SHOWN]
        if new[_SHOWN:]:
            self.problems.append(f"{len(new) - _SHOWN} more problems of this kind")


def by_cause(lines: Sequence[str]) -> list[str]:
    """Lines `FILE: CAUSE` as one line per cause, with the number of its files and the first three."""
    files: dict[str, list[str]] = {}
    for line in lines:
        file, colon, cause = line.partition(": ")
        # Pillow repeats the file in its message, which would make every cause different.
        cause = cause.replace(f" {file!r}", "")
        files.setdefault(f"{colon}{cause}" or line, []).append(file if colon else "")
    return [
        (names[0] if len(names) == 1 else f"{len(names)} files ({list_names(names, 3)})") + cause
        for cause, names in files.items()
    ]


@dataclass
class Split:
    """One split of a recipe's data.

    Attributes:
        name: Its name in the data set.
        dataset: The data set; if it cannot be opened as declared, its pairs of files or None.
        opened: Whether it could be opened as declared.
        classes: Names of the classes; empty if none are declared.
        label_map: The declared mapping, if it is usable.
        labelled: Whether there are labels.
        orientation: What masks without an orientation tag match, as declared.
    """

    name: str
    dataset: Any
    opened: bool
    classes: list[str]
    label_map: LabelMap | None
    labelled: bool = True
    orientation: Orientation | None = None


def open_for_audit(
    config: DataConfig, which: str, findings: Findings, labelled: bool = True
) -> Split:
    """A split as training would open it, or as much of it as can be opened; see `open_split`."""
    name = config.train_split if which == "train" else config.val_split
    try:
        dataset = open_split(config, which, labelled)
    except (ValueError, OSError) as error:
        findings.add_problems([str(error)])
        return _open_leniently(config, which, name, findings)
    return split_of(name, dataset)


def split_of(name: str, dataset: Any) -> Split:
    """An opened data set with what it declares about its labels."""
    classes = [str(c) for c in getattr(dataset, "classes", [])]
    label_map = getattr(dataset, "label_map", None)
    if label_map is None and 0 < len(classes) <= MAX_CLASSES:
        label_map = LabelMap(None, len(classes))
    return Split(
        name,
        dataset,
        True,
        classes,
        label_map,
        getattr(dataset, "labelled", True),
        getattr(dataset, "orientation", None),
    )


def _open_leniently(config: DataConfig, which: str, name: str, findings: Findings) -> Split:
    if config.name != "folder":
        return Split(name, None, False, [], None)
    # Others have been reported, and nothing can be opened with them.
    options = fitting(split_options(config, which), Folder)
    if options.get("labels", "masks") != "masks":
        return Split(name, None, False, [], None)
    declared = options.get("classes") or []
    most = isinstance(declared, int) and declared > MAX_CLASSES
    classes = class_names([] if most else declared)
    try:
        reading = {key: options[key] for key in ("threshold", "tolerance") if key in options}
        label_map = LabelMap(options.get("mapping"), len(classes), **reading)
    except ValueError:
        label_map = None
    unpaired: list[str] = []
    layout = {k: v for k, v in options.items() if k in signature(folder_pairs).parameters}
    layout = {k: v for k, v in layout.items() if k not in ("root", "split")}
    try:
        pairs = folder_pairs(config.root, name, unpaired=unpaired, **layout)
    except (ValueError, OSError) as error:
        findings.add_problems([str(error)])
        return Split(name, None, False, classes, label_map)
    findings.add_problems(unpaired)
    orientation: Orientation | None = None
    with suppress(ValueError):  # already reported
        orientation = check_orientation(options.get("orientation"))
    return Split(name, pairs, False, classes, label_map, orientation=orientation)


def judge(splits: Sequence[Split], surveys: Sequence[Survey], findings: Findings) -> None:
    """Add problems with the files, and warnings.

    Args:
        splits: The splits that could be read.
        surveys: What each of them holds.
        findings: Where to add them.
    """
    findings.add_problems([fault for one in surveys for fault in one.faults])
    findings.add_problems(list(filter(None, [_classes_without_id(splits, surveys)])))
    for split, one in zip(splits, surveys, strict=True):
        findings.add_problems(list(filter(None, [undeclared_line(one)])))
        if one.in_colour:
            official = one.label_map is not None and one.label_map.official
            findings.problems.append(
                f"{split.name}: {len(one.in_colour)} masks are in colour "
                f"({list_names(one.in_colour, 3)}); expected label ids, in one channel. "
                + (
                    "Use the masks as published"
                    if official
                    else "Declare a mapping of colours, which `segdistill check` proposes, or export ids"
                )
            )
        if one.left_out:
            findings.warnings.append(f"{split.name}: {_left_out(one)}")
        if split.labelled:
            _judge_classes(split, one, findings)
    findings.add_problems(list(filter(None, [_unclear_palettes(surveys), _unclear_white(surveys)])))
    findings.problems += [
        _other_classes(splits[0], one) for one in splits[1:] if one.classes != splits[0].classes
    ]
    most = max((len(split.classes) for split in splits), default=0)
    if most > MAX_CLASSES:
        findings.problems.append(
            f"there are {most} classes; expected at most {MAX_CLASSES}, as {IGNORED} is the ignored "
            "id. Map the ids to fewer classes"
        )
    if len(surveys) == 2:
        findings.add_problems(list(filter(None, [_one_class(splits[0], surveys[0])])))
        judge_both(splits, surveys, findings)


def _other_classes(train: Split, other: Split) -> str:
    """Where the classes of two splits begin to differ, and what to do."""
    pairs = enumerate(zip_longest(other.classes, train.classes))
    number, (name, expected) = next(one for one in pairs if one[1][0] != one[1][1])
    return (
        f"{other.name}: class {number} is {name!r:.40}; expected {expected!r:.40}, as in {train.name}. Set "
        "data.options.classes to one list for both"
    )


def _unclear_palettes(surveys: Sequence[Survey]) -> str:
    """Why the indices of palette images do not tell the classes; "" if they do."""
    label_map = surveys[0].label_map if surveys else None
    difference = palettes_differ(surveys) if surveys else ""
    if not difference or (label_map is not None and label_map.official):
        return ""
    return (
        f"the palettes of the masks differ ({difference}); expected one palette, as masks are read by "
        "index. Declare a mapping of colours, which `segdistill check` proposes, or save all masks with one "
        "palette"
    )


def _unclear_white(surveys: Sequence[Survey]) -> str:
    """Why 255 is hardly the ignored id of two classes; "" if it may be."""
    label_map = surveys[0].label_map if surveys else None
    if label_map is None or not label_map.assumed or label_map.num_classes != 2:
        return ""
    ones, whites = (
        sum(one.ids[value].pixels for one in surveys if value in one.ids) for value in (1, IGNORED)
    )
    if not surveys[0].of_files:
        if ones or not whites:
            return ""
        return (
            "255 occurs but 1 does not, with 2 classes; expected class numbers, as 255 is ignored. Return 1 "
            "for the second class"
        )
    if not ones or whites <= RIM * ones:
        return ""
    return (
        f"255 has {whites} pixels and 1 only {ones}, with 2 classes and no mapping; expected a declared "
        "meaning of 255. Add threshold: 128 for black and white masks, or mapping {0: 0, 1: 1, 255: null} to "
        "ignore 255"
    )


def _classes_without_id(splits: Sequence[Split], surveys: Sequence[Survey]) -> str:
    """The declared classes that the mapping gives no id, and the ids in question; "" for none."""
    for split, one in zip(splits, surveys, strict=True):
        missing = without_id(one.label_map) if split.labelled and one.label_map else []
        if not missing:
            continue
        text = colour_text if one.by_colour else str
        undeclared = sorted({raw for each in surveys for raw in each.undeclared})
        names = [f"{number} ({split.classes[number]})" for number in missing]
        ids = (
            f"; not declared: {list_names([text(raw) for raw in undeclared])}" if undeclared else ""
        )
        plain = [raw for raw in undeclared if raw != IGNORED]
        sure = len(missing) == len(plain) == 1
        return (
            f"mapping has no id for class {list_names(names)}; expected at least one for each class{ids}. "
            f"Add `{text(plain[0]) if sure else 'ID'}: {missing[0]}`, or remove the class from `classes`"
        )
    return ""


def _one_class(train: Split, one: Survey) -> str:
    """Why a network can learn nothing from the labels of a training split, which hold one class; "" if it can."""
    present = [n for n, pixels in enumerate(one.class_pixels[:-1]) if pixels]
    if not train.labelled or not one.readable or len(present) != 1:
        return ""
    label_map, values = one.label_map, sorted(one.ids)
    remedy = "Check `classes` and `mapping`"
    if label_map is not None and label_map.threshold is not None and values:
        remedy = (
            f"All grey levels ({values[0]} to {values[-1]}) lie on one side of threshold {label_map.threshold}: change "
            "it, or remove it if they are class numbers"
        )
    elif one.of_files and values == [0, IGNORED]:
        remedy = (
            "Masks hold 0 and 255: for black and white add mapping: {0: 0, 255: 1}, and name both classes, such as "
            "[background, object]"
        )
    name = train.classes[present[0]] if present[0] < len(train.classes) else present[0]
    return f"{train.name}: all labelled pixels are of the class {name}; expected at least two classes. {remedy}"


def _left_out(one: Survey) -> str:
    """How many shapes are not drawn, of which categories and why."""
    kinds = [f"{kind.category!r} {kind.why} ({n})" for kind, n in one.left_out.most_common()]
    count = one.left_out.total()
    return (
        f"{count} shape{'s are' if count > 1 else ' is'} not drawn: {list_names(kinds)}. Boxes that the file "
        "states for them are ignored; without one, their pixels count as not annotated"
    )


def _judge_classes(split: Split, one: Survey, findings: Findings) -> None:
    absent = [c for c, n in zip(split.classes, one.class_images, strict=False) if not n]
    if absent:
        findings.warnings.append(f"{split.name}: no pixel of {list_names(absent)}")
    if one.unlabelled:
        findings.warnings.append(
            f"{split.name}: {len(one.unlabelled)} masks are entirely ignored: "
            f"{list_names(one.unlabelled, 3)}"
        )
    total = int(one.class_pixels.sum())
    if one.readable and total == one.class_pixels[-1]:
        findings.problems.append(
            f"{split.name}: every pixel is ignored; expected pixels of some class. Map the ids of its masks, or "
            "leave the masks out to train without labels"
        )
    elif total and one.class_pixels[-1] > total / 2:
        findings.warnings.append(
            f"{split.name}: {100 * one.class_pixels[-1] / total:.0f} % of the pixels are ignored"
        )


def judge_sizes(
    recipe: Recipe, splits: Sequence[Split], surveys: Sequence[Survey], findings: Findings
) -> None:
    """Warn about few evaluation images, and about sizes in the recipe that do not suit the images."""
    size, crop = recipe.data.size, recipe.train.crop
    for split, one in zip(splits, surveys, strict=True):
        if split.name == recipe.data.val_split and 0 < one.samples < _FEW:
            folder = recipe.data.name == "folder"
            held_out = (
                ", or raise data.options.val_fraction where it holds them out" if folder else ""
            )
            findings.warnings.append(
                f"{split.name}: {one.samples} images to evaluate on; expected at least {_FEW}, since the "
                f"mIoU of few images is noisy. Add images{held_out}"
            )
    sizes = [each for one in surveys for each in one.sizes]
    if size is not None:
        ratio = size[1] / size[0]
        stretch = max((max(w / h / ratio, ratio * h / w) for w, h in sizes), default=1)
        if stretch > _STRETCH:
            findings.warnings.append(
                f"data.size is {list(size)}; images change their aspect ratio by up to {stretch:.1f}x. "
                "Choose a height and width in the proportion of the images"
            )
        sizes = [(size[1], size[0])] if sizes else []
    if crop is not None and sizes:
        height, width = max(h for _, h in sizes), max(w for w, _ in sizes)
        if crop[0] > height or crop[1] > width:
            what = "data.size" if size is not None else "the largest image"
            findings.warnings.append(
                f"train.crop is {list(crop)}; {what} is {[height, width]}, so that crops are padded. "
                "Choose a crop that fits"
            )


def judge_both(
    splits: Sequence[Split],
    surveys: Sequence[Survey],
    findings: Findings,
    further: bool = False,
    claimed: bool = False,
) -> None:
    """Images and groups that a split to measure on, the second, has in common with the training split.

    Args:
        splits: The training split and the other.
        surveys: What was found in them.
        findings: Where problems and warnings are added.
        further, claimed: As for `judged_shared`.
    """
    train, val = ((split.name, split.dataset) for split in splits)
    refused, warning = judged_shared(train, val, further, claimed)
    findings.add_problems([refused] if refused else [])
    if not refused and not warning and (shared := shared_images(surveys[0], surveys[1])):
        warning = (
            f"{len(shared)} images of {val[0]} are also in {train[0]}, pixel for pixel in another file "
            f"({list_names(shared)}); metrics on them are meaningless. Remove them from one split"
        )
    findings.warnings += [warning] if warning else []
    groups = [set(getattr(split.dataset, "groups", [])) - {""} for split in splits]
    if both := sorted(groups[0] & groups[1]):
        findings.warnings.append(
            f"{splits[1].name} and {splits[0].name} share {len(both)} group(s) of similar frames "
            f"({list_names(both)}); metrics are higher than on unseen groups"
        )


def refuse_unclear_orientation(*datasets: Any) -> None:
    """Refuse pairs of image and mask whose orientation is ambiguous; only headers are read.

    Raises:
        ValueError: Images have an orientation tag, their masks have none, the sizes do not settle it,
            and nothing is declared. One line names the files and what to declare.
    """
    lines = []
    for dataset in datasets:
        pairs = getattr(dataset, "pairs", [])
        files = [(pair.image, mask) for pair in pairs for mask in pair.masks]
        lines += unclear_orientations(files, getattr(dataset, "orientation", None))
    if lines:
        raise ValueError("; ".join(by_cause(list(dict.fromkeys(lines)))))


def missing_labels(method: Method, labels: str, where: str) -> str:
    """Why a method cannot learn from images without labels, and what to do; "" if it can.

    Args:
        method: The method.
        labels: `method.labels`.
        where: The images.
    """
    supervised = [name for name, term in method.terms.items() if term.needs_labels]
    if not supervised or labels != "data":
        return ""
    return (
        f"{where} has no labels; expected some for {', '.join(supervised)} of method {method.name!r}. "
        "Set method.labels to teacher to use the teacher's classes, or "
        f"terms.{supervised[0]}.weight to 0 to leave {'a term' if supervised[1:] else 'it'} out"
    )
