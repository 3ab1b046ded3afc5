"""What to set where the files of a folder lie otherwise than declared, as their names suggest."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from segdistill.data.dataset import list_names
from segdistill.data.files import IMAGE_SUFFIXES
from segdistill.data.layouts.suffixes import Suffixes
from segdistill.data.reading.listing import list_lines, visible_files
from segdistill.names import in_yaml

TRAINING = ("train", "training")
_SPLITS = {
    "train": TRAINING,
    "val": ("val", "valid", "validation", "dev", "test", "testing"),
}
_SUFFIX = r"([_.-][A-Za-z][A-Za-z0-9]*)+$"
"""Words at the end of a name; numbers count frames."""
_MOST = 16
"""A stem with more endings is the name of a sequence."""
_OF_MASKS = "mask|label|annot|seg|gt|truth"


def likely_split(split: str, folders: Iterable[str]) -> str:
    """The option that names a split as its folder is called; "" if none is likely."""
    for role, names in _SPLITS.items():
        for name in names:
            there = [one for one in folders if one.lower() == name]
            if split.lower() in names and there:
                return f". Set data.{role}_split: {there[0]}"
    return ""


def likely_suffixes(images: Iterable[str], masks: Iterable[str]) -> list[Suffixes]:
    """Suffixes by which most images have one mask, those of the most pairs first.

    Args:
        images: Names of the images without extension.
        masks: Names of the masks; the same where all lie in one folder.
    """
    by_stem: tuple[dict[str, set[str]], ...] = ({}, {})
    for names, found in zip((images, masks), by_stem, strict=True):
        for name in names:
            tail = re.search(_SUFFIX, name)
            start = len(name) if tail is None else tail.start()
            cuts = [start + cut.start() for cut in re.finditer("[_.-]", name[start:])]
            for place in filter(None, [*cuts, len(name)]):
                found.setdefault(name[:place], set()).add(name[place:])
    pairs = Counter(
        Suffixes(one, other)
        for stem in by_stem[0].keys() & by_stem[1].keys()
        if max(len(found[stem]) for found in by_stem) <= _MOST
        for one in by_stem[0][stem]
        for other in by_stem[1][stem]
        if one != other and not re.search(_OF_MASKS, one.lower())
    )
    enough = max(2, len(set(images)) // 4)
    likely = [each for each, count in pairs.most_common(64) if count >= enough]
    # Of several pairs for the same files the shortest suffixes say most: x, x_mask before x_1, x_1_mask.
    best = [one for one in likely if pairs[one] == pairs[likely[0]]]
    return sorted(
        best, key=lambda one: (len(one.image) + len(one.mask), not _of_mask(one.mask), one)
    )[:3]


def _of_mask(suffix: str) -> bool:
    return bool(re.search(_OF_MASKS, suffix.lower()))


def in_words(likely: Sequence[Suffixes]) -> str:
    """Suffixes as options, one after the other."""
    return " or ".join(map(_as_options, likely))


def _as_options(one: Suffixes) -> str:
    image = f"image_suffix: {one.image}, " if one.image else ""
    return f"{{{image}mask_suffix: {one.mask}}}"


def missing_folders(root: Path, image_dir: str, mask_dir: str | None) -> str:
    """What a root holds in place of the declared folders, and the options that its names suggest."""
    there = list_names(sorted(path.name for path in root.iterdir()), 8)
    options = _labels_beside(root) if mask_dir is not None else ""
    options = options or likely_options(root, image_dir, mask_dir)
    return f"{root} holds {there or 'nothing'}. Set data.options: {options}"


def _labels_beside(root: Path) -> str:
    """Options for images and labels in one folder, or for label files; "" if there are none.

    Only the root, its folders and theirs are looked at, the first with files of each kind.
    """
    splits = folders_in(root)
    if any((place / "_annotations.coco.json").is_file() for place in [root, *splits]):
        return "{labels: coco, image_dir: .}"
    folders = [place for one in [root, *splits] for place in (one, *folders_in(one))]
    labels = [place for place in folders if place.name == "labels"]
    if any(visible_files(place, [".txt"]) for place in labels):
        return "{labels: yolo}"
    for place in [root, *splits]:
        names = [Path(path).stem for path in visible_files(place, IMAGE_SUFFIXES, True, False)]
        stems = {Path(path).stem for path in visible_files(place, [".json"], True, False)}
        if names and stems & set(names):
            return "{labels: labelme, image_dir: ., classes: [..]}"
        if likely := likely_suffixes(names, names):
            return " or ".join(
                f"{{image_dir: ., mask_dir: ., {text[1:]}" for text in map(_as_options, likely)
            )
    return ""


def likely_options(root: Path, image_dir: str, mask_dir: str | None) -> str:
    """`image_dir` and `mask_dir` as the names of the folders suggest."""
    folders = [path.name for path in folders_in(root)]
    image = image_dir if image_dir in folders else None
    mask = mask_dir if mask_dir in folders else None
    rest = [name for name in folders if name not in (image, mask)]
    likely = [name for name in rest if re.search(_OF_MASKS, name.lower())]
    if mask is None and len(likely) == 1:
        mask = likely[0]
        rest.remove(mask)
    if image is None and len(rest) == 1:
        image = rest[0]
    options = f"image_dir: {image or 'FOLDER'}"
    return f"{{{options}}}" if mask_dir is None else f"{{{options}, mask_dir: {mask or 'FOLDER'}}}"


def suggested_json(root: Path, split: str) -> str:
    """The JSON files of a root, and the option that names the one of a split."""
    found = [Path(path).relative_to(root).as_posix() for path in visible_files(root, [".json"])]
    shallow = [name for name in found if name.count("/") <= 2]
    if not shallow:
        return f"{root} holds no JSON file. Set `root` to the folder of the export"
    own = [name for name in shallow if split in name]
    likely = (own or shallow)[0]
    parent, slash, name = likely.rpartition("/")
    value = (
        likely
        if not own
        else parent.replace(split, "{split}") + slash + name.replace(split, "{split}")
    )
    return f'{root} holds {list_names(shallow, 4)}. Set data.options: {{annotations: "{value}"}}'


def likely_classes(root: Path) -> str:
    """The classes that an export of masks by Roboflow names, as options; "" if there is none."""
    for path in [root / "_classes.csv", *(place / "_classes.csv" for place in folders_in(root))]:
        if not path.is_file():
            continue
        rows = [line.split(",", 1) for _, line in list_lines(path)[1:]]
        pairs = [(row[0].strip(), row[-1].strip()) for row in rows]
        if pairs and [value for value, _ in pairs] == [str(number) for number in range(len(pairs))]:
            return f". Set data.options: {{classes: [{', '.join(in_yaml(name) for _, name in pairs)}]}}"
    return ""


def folders_in(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
