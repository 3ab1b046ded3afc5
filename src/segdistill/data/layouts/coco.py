"""The samples of a COCO file: where it lies, and where its images lie."""

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from segdistill.data.annotations.categories import Categories
from segdistill.data.annotations.coco import CocoFile, CocoLabel, open_coco
from segdistill.data.annotations.drawing import Drawing
from segdistill.data.dataset import list_names
from segdistill.data.files import IMAGE_SUFFIXES
from segdistill.data.layouts.pairs import FolderPairs, held_out_names
from segdistill.data.layouts.suggested import suggested_json
from segdistill.data.pair import Pair
from segdistill.data.reading.listing import entry_path, files_beside, tell_once
from segdistill.names import unknown

_SOME = 200
"""About so many of the listed names tell which folder they are relative to."""

_log = logging.getLogger(__name__)
ROBOFLOW = "_annotations.coco.json"
"""The file that exports of Roboflow have in the folder of each split."""


class CocoSamples:
    """The images of a COCO file that belong to a split.

    Attributes:
        source: The file, for messages.
        classes: Names of its categories.
    """

    def __init__(self, coco: CocoFile, images: dict[str, tuple[int, Path]]) -> None:
        self.coco, self._images = coco, images
        self.source, self.classes = str(coco.path), coco.classes()

    def check(self, categories: Categories) -> None:
        """Refuse categories with annotations that are no class.

        Raises:
            ValueError: There are some.
        """
        names = {self.coco.categories[key] for key in self.coco.used()}
        if undeclared := names - categories.numbers.keys():
            raise ValueError(f"{self.source}: {categories.complaint(undeclared)}")

    def pairs(self, drawing: Drawing) -> list[Pair]:
        """A pair for each image."""
        return [
            Pair(
                name,
                path,
                self.coco.path,
                name.rpartition("/")[0],
                drawn=CocoLabel(self.coco, position, drawing),
            )
            for name, (position, path) in self._images.items()
        ]


def coco_samples(
    finder: FolderPairs,
    split: str,
    annotations: str | None,
    held_out: tuple[float, int],
    skip: bool = False,
) -> CocoSamples:
    """The samples of a split.

    Args:
        finder: Knows the root and the folder of images.
        split: Name of the split.
        annotations: The file, relative to the root, `{split}` in place of the split's name. None: the file
            of an export of Roboflow. Without `{split}` a part of its images is held out.
        held_out: That fraction, and the seed.
        skip: Leave out images that are not there, with a line in the log; otherwise they are refused.

    Raises:
        FileNotFoundError: The file or an image is missing.
        ValueError: The file is damaged, or the split is unknown.
    """
    root = finder.root
    pattern = "{split}/" + ROBOFLOW if annotations is None else annotations
    path = entry_path(root, pattern.replace("{split}", split), "annotations")
    if not path.is_file():
        raise FileNotFoundError(_no_file(root, pattern, path, split))
    coco = open_coco(path)
    if not coco.images:
        raise ValueError(f"{path} lists no images; expected some. Export the labels again")
    base = _image_folder(finder, split, path, [name for name, _, _ in coco.images])
    images = _found(coco, base, skip)
    _tell_unlisted(path, base, [image for _, image in images.values()])
    if "{split}" not in pattern:
        kept = set(held_out_names(list(images), split, *held_out, root))
        images = {name: one for name, one in images.items() if name in kept}
    return CocoSamples(coco, images)


def _no_file(root: Path, pattern: str, path: Path, split: str) -> str:
    """Why there is no COCO file for a split, and what there is."""
    before, place, after = pattern.partition("{split}")
    if place:
        there = [p.relative_to(root).as_posix() for p in root.glob(f"{before}*{after}")]
        splits = [name[len(before) : len(name) - len(after)] for name in there]
        if splits:
            return (
                f"{path}: no such label file; {unknown('split', split, splits)}. Set data.train_split and "
                "data.val_split to splits that are there"
            )
    return f"{path}: no such label file. {suggested_json(root, split)}"


def _image_folder(finder: FolderPairs, split: str, path: Path, names: Sequence[str]) -> Path:
    """The folder that the names of images are relative to: the first of those that hold most of them."""
    root, images = finder.root, finder.image_dir.replace("{split}", split)
    candidates = [root / images / split, root / split / images, root / images, root / split]
    candidates += [path.parent, root]
    there = [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]
    # Some names tell the folder; all are only looked for where none of those is anywhere.
    for some in (names[:: 1 + len(names) // _SOME], names):
        held = [sum(_holds(folder, name) for name in some) for folder in there]
        if any(held):
            return there[held.index(max(held))]
    _refuse_other_folders(path, names, there)
    raise FileNotFoundError(
        f"{path} lists {len(names)} images ({list_names(names, 3)}), of which none is in "
        f"{list_names(sorted(map(str, there)), 8)}. Set image_dir to the folder that holds the images, relative to "
        "root"
    )


def _refuse_other_folders(path: Path, names: Sequence[str], there: Sequence[Path]) -> None:
    """Refuse names in folders that are not there, if the images lie where they are looked for."""
    last = [PurePosixPath(name.replace("\\", "/")).name for name in names[:_SOME]]
    for folder in there:
        for full, name in zip(names, last, strict=False):
            if name and _holds(folder, name):
                raise FileNotFoundError(
                    f"{path} lists {full!r:.80}, and {folder} holds {name}; expected file_name relative to the folder "
                    "of the images. Correct the names in the file"
                )


def _holds(folder: Path, name: str) -> bool:
    return _stored(folder / name.replace("\\", "/")).is_file()


def _found(coco: CocoFile, base: Path, skip: bool) -> dict[str, tuple[int, Path]]:
    """Position and file of each image by its name."""
    found: dict[str, tuple[int, Path]] = {}
    missing = []
    for position, (file_name, _, _) in enumerate(coco.images):
        path = _stored(entry_path(base, file_name, f"{coco.path}: images[{position}]"))
        name = normalize("NFC", path.relative_to(base).with_suffix("").as_posix())
        if name in found:
            raise ValueError(f"{found[name][1]} and {path} have the same name. Keep one of them")
        if path.is_file():
            found[name] = position, path
        else:
            missing.append(file_name)
    if missing:
        _tell_missing(
            f"{len(missing)} of {len(coco.images)} images that {coco.path} lists are not in {base} "
            f"({list_names(missing)})",
            skip,
        )
    return found


def _tell_unlisted(path: Path, base: Path, listed: Sequence[Path]) -> None:
    """Log images that lie beside those of the file. They may be those of another split."""
    if others := files_beside(base, listed, IMAGE_SUFFIXES):
        tell_once(
            f"{path}: {len(others)} of {len(others) + len(listed)} images in {base} are not listed and not read "
            f"({list_names(others, 3)})",
            logging.INFO,
        )


def _stored(path: Path) -> Path:
    """A file whose name may be stored in the other form of letters with accents."""
    if not path.is_file():
        for form in ("NFC", "NFD"):
            other = Path(normalize(form, str(path)))
            if other.is_file():
                return other
    return path


def _tell_missing(text: str, skip: bool) -> None:
    if not skip:
        raise FileNotFoundError(
            f"{text}; expected all of them. Add them, or set missing: skip to leave them out"
        )
    _log.warning("%s; they are left out", text)
