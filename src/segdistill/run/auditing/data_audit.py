"""What is wrong with the files of a recipe's splits, and what is odd about them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from segdistill.config import DataConfig
from segdistill.data.dataset import list_names
from segdistill.data.folder import folder_pairs
from segdistill.data.label_map import IGNORED, MAX_CLASSES, LabelMap
from segdistill.data.orientation import Orientation, check_orientation, unclear_orientations
from segdistill.distillation.method import Method
from segdistill.run.auditing.survey import Survey, shared_images, undeclared_line
from segdistill.run.opening import open_split, split_options

_SHOWN = 8
"""Complaints of one kind that are kept before `and n more`."""


@dataclass
class Findings:
    """What was found: problems to fix, and warnings."""

    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def blame(self, lines: Sequence[str]) -> None:
        """Note what is wrong: one line a cause, but not twice, and of many causes the first."""
        new = _by_cause([line for line in dict.fromkeys(lines) if line not in self.wrong])
        self.wrong += new[:_SHOWN]
        if new[_SHOWN:]:
            self.wrong.append(f"{len(new) - _SHOWN} more of the same kind")


def _by_cause(lines: Sequence[str]) -> list[str]:
    """Lines `FILE: CAUSE` as one for each cause, with the number of its files and the first three."""
    files: dict[str, list[str]] = {}
    for line in lines:
        file, colon, cause = line.partition(": ")
        # Pillow repeats the file in its message, which would make every cause another.
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
        name: What the data set calls it.
        dataset: The data set, the pairs of files where it cannot be opened as declared, or None.
        opened: Whether it could be.
        classes: Names of the classes; empty where none are declared.
        label_map: The declared mapping, where one can be used.
        labelled: Whether there are labels.
        orientation: What masks without an orientation tag fit, as declared.
    """

    name: str
    dataset: Any
    opened: bool
    classes: list[str]
    label_map: LabelMap | None
    labelled: bool = True
    orientation: Orientation | None = None


def open_for_audit(config: DataConfig, which: str, found: Findings, labelled: bool = True) -> Split:
    """A split as training would open it, or as much of it as there is; see `open_split`."""
    name = config.train_split if which == "train" else config.val_split
    try:
        dataset = open_split(config, which, labelled)
    except (ValueError, OSError) as error:
        found.blame([str(error)])
        return _open_leniently(config, which, name, found)
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


def _open_leniently(config: DataConfig, which: str, name: str, found: Findings) -> Split:
    options = split_options(config, which)
    if config.name != "folder":
        return Split(name, None, False, [], None)
    classes = options.get("classes") or []
    if isinstance(classes, int):
        classes = [f"class{number}" for number in range(classes)]
    try:
        label_map = LabelMap(options.get("mapping"), len(classes))
    except ValueError:
        label_map = None
    unpaired: list[str] = []
    layout = {k: v for k, v in options.items() if k in signature(folder_pairs).parameters}
    try:
        pairs = folder_pairs(config.root, name, unpaired=unpaired, **layout)
    except (ValueError, OSError) as error:
        found.blame([str(error)])
        return Split(name, None, False, classes, label_map)
    found.blame(unpaired)
    orientation: Orientation | None = None
    with suppress(ValueError):  # noted already
        orientation = check_orientation(options.get("orientation"))
    return Split(name, pairs, False, [str(c) for c in classes], label_map, orientation=orientation)


def judge(splits: Sequence[Split], surveys: Sequence[Survey], found: Findings) -> None:
    """Note what is wrong with the files, and what is odd about them.

    Args:
        splits: Those that could be read.
        surveys: What each of them holds.
        found: Where to note it.
    """
    found.blame([fault for one in surveys for fault in one.faults])
    for split, one in zip(splits, surveys, strict=True):
        found.blame(list(filter(None, [undeclared_line(one)])))
        if one.in_colour:
            found.wrong.append(
                f"{split.name}: {len(one.in_colour)} masks are in colour where ids are expected: "
                f"{list_names(one.in_colour, 3)}"
            )
        if one.palettes_differ and (one.label_map is None or not one.label_map.by_colour):
            found.warnings.append(
                f"{split.name}: the palettes of the masks differ ({one.palettes_differ}): if colours "
                "tell the classes, declare a mapping of colours"
            )
        if split.labelled:
            _judge_classes(split, one, found)
    if len({tuple(split.classes) for split in splits}) > 1:
        found.wrong.append("train and val declare different classes: they must be the same")
    most = max((len(split.classes) for split in splits), default=0)
    if most > MAX_CLASSES:
        found.wrong.append(
            f"{most} classes, so that {IGNORED}, the ignored id, is one of them: "
            f"map the ids to at most {MAX_CLASSES}"
        )
    if len(surveys) == 2:
        _judge_both(splits, surveys, found)


def _judge_classes(split: Split, one: Survey, found: Findings) -> None:
    absent = [c for c, n in zip(split.classes, one.class_images, strict=False) if not n]
    if absent:
        found.warnings.append(f"{split.name}: no pixel of {list_names(absent)}")
    if one.unlabelled:
        found.warnings.append(
            f"{split.name}: {len(one.unlabelled)} masks are ignored from edge to edge: "
            f"{list_names(one.unlabelled, 3)}"
        )
    total = int(one.class_pixels.sum())
    if total and one.class_pixels[-1] > total / 2:
        found.warnings.append(
            f"{split.name}: {100 * one.class_pixels[-1] / total:.0f} % of the pixels are ignored"
        )


def _judge_both(splits: Sequence[Split], surveys: Sequence[Survey], found: Findings) -> None:
    shared = shared_images(surveys[0], surveys[1])
    if shared:
        found.wrong.append(
            f"{len(shared)} images of {splits[1].name} are in {splits[0].name}, too, pixel for pixel: "
            f"{list_names(shared)}; metrics on them are meaningless. Remove them from one split"
        )
    groups = [set(getattr(split.dataset, "groups", [])) - {""} for split in splits]
    if both := sorted(groups[0] & groups[1]):
        found.warnings.append(
            f"{splits[1].name} and {splits[0].name} share {len(both)} group(s) of frames that look "
            f"alike ({list_names(both)}): figures read above those of unseen ones"
        )


def shared_files(train_set: Any, val_set: Any) -> list[str]:
    """Names of the evaluation samples whose image file is trained on, too; no file is opened.

    `segdistill check` compares the pixels.
    """
    sets = [getattr(dataset, "pairs", []) for dataset in (train_set, val_set)]
    trained = {pair.image.resolve() for pair in sets[0]}
    return [pair.name for pair in sets[1] if pair.image.resolve() in trained]


def refuse_unclear_orientation(*datasets: Any) -> None:
    """Refuse pairs of image and mask that fit each other either way; only headers are read.

    Raises:
        ValueError: Images carry an orientation tag, their masks carry none, the sizes do not tell, and
            nothing is declared. One line names the files and what to declare.
    """
    lines = []
    for dataset in datasets:
        pairs = getattr(dataset, "pairs", [])
        files = [(pair.image, pair.mask) for pair in pairs if pair.mask is not None]
        lines += unclear_orientations(files, getattr(dataset, "orientation", None))
    if lines:
        raise ValueError("; ".join(_by_cause(list(dict.fromkeys(lines)))))


def missing_labels(method: Method, labels: str, where: str) -> str:
    """Why a method cannot learn from images without labels, and what to do; "" where it can.

    Args:
        method: The method.
        labels: `method.labels`.
        where: The images.
    """
    needing = [name for name, term in method.terms.items() if term.needs_labels]
    if not needing or labels == "teacher":
        return ""
    plural = len(needing) > 1
    return (
        f"{', '.join(needing)} of method {method.name!r} learn{'' if plural else 's'} from labels, and "
        f"{where} has none: method.labels teacher gives {'them' if plural else 'it'} the teacher's "
        f"classes, terms.{needing[0]}.weight 0 takes {'one' if plural else 'it'} out"
    )
