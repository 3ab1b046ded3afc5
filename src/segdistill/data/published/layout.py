"""Files of data sets with a fixed layout: finding them, pairing them, reporting what is missing."""

import os
from collections.abc import Sequence
from pathlib import Path

from segdistill.data.dataset import list_names
from segdistill.data.pair import Pair
from segdistill.data.reading.listing import list_lines, visible_files, without_comment


class Layout:
    """A root folder, and the folders that a data set must have in it.

    Args:
        name: Name of the data set, for messages.
        root: The folder.
        inside: Subfolders to use as the root if they exist, such as `VOCdevkit/VOC2012`.

    Raises:
        ValueError: No root is given.
    """

    def __init__(self, name: str, root: str | Path | None, inside: Sequence[str] = ()) -> None:
        if root is None:
            raise ValueError(
                f"{name}: `root` is missing; expected the folder that holds its images and masks"
            )
        self.name = name
        places = [Path(root, place) for place in inside]
        self.root = next((place for place in places if place.is_dir()), Path(root))

    def folder(self, *places: str) -> Path:
        """The first of these folders that exists.

        Raises:
            FileNotFoundError: None exists; the message names what is there.
        """
        for place in places:
            if (self.root / place).is_dir():
                return self.root / place
        raise FileNotFoundError(
            f"{self.name}: no folder {' or '.join(places)} in {self.root}; "
            f"{found_in(self.root, places[0])}"
        )


class Files:
    """The files in a folder and its subfolders whose names have the same ending.

    Args:
        folder: Where to look.
        ending: The ending of the names, such as `_leftImg8bit.png`.

    Attributes:
        paths: The files by their names without the ending, in the order of their paths.

    Raises:
        FileNotFoundError: There is no such file.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder, self.ending = folder, ending
        paths = visible_files(folder, [ending]) if folder.is_dir() else []
        self.paths = {os.path.basename(path).removesuffix(ending): path for path in paths}
        if not self.paths:
            raise FileNotFoundError(f"no file named *{ending} in {folder}; {found_in(folder)}")

    def group(self, name: str) -> str:
        """The name of a file's folder, "" for the top one."""
        parent = os.path.dirname(self.paths[name])
        return "" if parent == str(self.folder) else os.path.basename(parent)


def paired(images: Files, masks: Files | None, list_file: Path | None = None) -> list[Pair]:
    """Images with the masks of the same names, grouped by the folders of the images.

    Args:
        images: The images.
        masks: The masks; None: there are none.
        list_file: Text file with the names to use, one per line; None: all.

    Raises:
        FileNotFoundError: The list, a file that it names, or a mask is missing.
        ValueError: The list is empty.
    """
    names = list(images.paths) if list_file is None else listed_names(list_file)
    missing = [name for name in names if name not in images.paths]
    if missing:
        raise FileNotFoundError(
            f"{list_file} names {len(missing)} file(s) missing from {images.folder}: "
            f"{list_names([name + images.ending for name in missing])}"
        )
    unlabelled = [] if masks is None else [name for name in names if name not in masks.paths]
    if masks is not None and unlabelled:
        raise FileNotFoundError(
            f"{len(unlabelled)} of {len(names)} images have no mask in {masks.folder}; expected "
            f"{list_names([name + masks.ending for name in unlabelled], 3)}"
        )
    return [
        Pair(n, Path(images.paths[n]), Path(masks.paths[n]) if masks else None, images.group(n))
        for n in names
    ]


def listed_names(list_file: Path) -> list[str]:
    """Names in a list file, one per line; for lines with paths to image and mask, the image's name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is empty.
    """
    if not list_file.is_file():
        raise FileNotFoundError(f"{list_file}: no such list of names; {found_in(list_file.parent)}")
    # Lists may hold paths of another machine: only the name is used.
    entries = [without_comment(line) for _, line in list_lines(list_file)]
    names = [Path(entry.split()[0].replace("\\", "/")).stem for entry in entries if entry]
    if not names:
        raise ValueError(f"{list_file} is empty; expected one image name per line")
    return names


def found_in(root: Path, place: str = "") -> str:
    """A short list of what is in `place`, or in the nearest parent folder that exists."""
    wanted = [root, *(root.joinpath(*Path(place).parts[:n]) for n in range(1, 9))]
    there = [folder for folder in wanted if folder.is_dir()]
    if not there:
        return f"there is no folder {root}"
    entries = sorted(entry.name for entry in there[-1].iterdir())
    return f"{there[-1]} holds {list_names(entries, 8)}" if entries else f"{there[-1]} is empty"
