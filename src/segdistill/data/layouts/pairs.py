"""Pairs of image and mask files in split folders, in one folder each, or named by a list."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from segdistill.data.channels import ARRAY_SUFFIX
from segdistill.data.dataset import list_names
from segdistill.data.files import IMAGE_SUFFIXES
from segdistill.data.layouts.suffixes import Suffixes, tell_others
from segdistill.data.layouts.suggested import (
    TRAINING,
    folders_in,
    in_words,
    likely_split,
    likely_suffixes,
    missing_folders,
)
from segdistill.data.listed import listed_pairs
from segdistill.data.pair import Pair
from segdistill.data.randomness import key_number
from segdistill.data.reading.listing import tell_once, tell_unread, unread_pictures, visible_files
from segdistill.names import unknown

Missing = Literal["refuse", "skip", "empty", "unlabelled"]
HELD_OUT_SPLITS = ("train", "val", "all")
_NO_LABELS = ("classes.txt",)
"""Files that tools write beside their labels."""

_IN_A_LIST = "If names differ otherwise, name image and mask of each sample in a list_file"

_log = logging.getLogger(__name__)


class FolderPairs:
    """Finds the pairs of image and mask files under a root, in any supported layout.

    Args:
        root: The folder that holds both.
        image_dir: Folder of the images inside.
        mask_dir: Folder of the masks, or of other files with labels; None: there are none.
        mask_suffix: What follows the image's name in the mask's.
        unpaired: Collects messages about files without a partner; None: they are an error.
        endings: Endings of the masks.
        missing: What becomes of files without a partner: they are refused (or collected); left out with
            `skip`; with `empty` and `unlabelled`, images without a label are pairs without a mask.
        image_suffix: What follows the sample's name in the image's.
    """

    def __init__(
        self,
        root: Path,
        image_dir: str,
        mask_dir: str | None,
        mask_suffix: str,
        unpaired: list[str] | None = None,
        *,
        endings: Sequence[str] = IMAGE_SUFFIXES,
        missing: Missing = "refuse",
        image_suffix: str = "",
    ) -> None:
        self.root, self.mask_suffix = root, mask_suffix
        self.image_dir, self.mask_dir, self.unpaired = image_dir, mask_dir, unpaired
        self.endings, self.missing, self.image_suffix = endings, missing, image_suffix

    def pairs(self, split: str, list_file: str | None, fraction: float, seed: int) -> list[Pair]:
        if list_file is not None:
            return self._listed(self.root / list_file.replace("{split}", split))
        folders = self._split_folders()
        if folders:
            if split not in folders:
                raise ValueError(
                    f"{self.root}: {unknown('split folder', split, folders)}{likely_split(split, folders)}"
                )
            return self._paired(*folders[split])
        return self._held_out(split, fraction, seed)

    def _masks(self, parent: Path, *inside: str) -> Path | None:
        return None if self.mask_dir is None else parent.joinpath(self.mask_dir, *inside)

    def _split_folders(self) -> dict[str, tuple[Path, Path | None]]:
        images = self.root / self.image_dir
        inside = {p.name: (p, self._masks(self.root, p.name)) for p in folders_in(images)}
        if _with_training(inside):
            self._tell_beside(deep=False)
            return inside
        outside = {
            p.name: (p / self.image_dir, self._masks(p))
            for p in folders_in(self.root)
            if (p / self.image_dir).is_dir()
        }
        if images.is_dir() and not _with_training(outside):
            return {}
        self._tell_beside(deep=True)
        return outside

    def _tell_beside(self, deep: bool) -> None:
        """Log images that lie beside split folders and are not read."""
        folder = self.root / self.image_dir
        if not folder.is_dir():
            return
        suffixes = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
        if files := visible_files(folder, suffixes, any_case=True, deep=deep):
            names = list_names([Path(path).name for path in files], 3)
            tell_once(f"{folder}: images beside split folders are not read: {len(files)} ({names})")

    def _held_out(self, split: str, fraction: float, seed: int) -> list[Pair]:
        check_held_out(split, self.root)
        everything = self._paired(self.root / self.image_dir, self._masks(self.root))
        names = [pair.name for pair in everything]
        if not names and self.unpaired:  # what is said of the files says why
            return []
        kept = set(held_out_names(names, split, fraction, seed, self.root))
        return [pair for pair in everything if pair.name in kept]

    def _paired(self, image_folder: Path, mask_folder: Path | None) -> list[Pair]:
        found = self._files(image_folder, "image_dir")
        suffixes = Suffixes(self.image_suffix, self.mask_suffix)
        if mask_folder is None:
            images = suffixes.images(found, False)
            return [Pair(n, path, None, n.rpartition("/")[0]) for n, path in images.items()]
        together = self._word == "mask" and image_folder.resolve() == mask_folder.resolve()
        if together and suffixes.image == suffixes.mask:
            raise ValueError(_not_told_apart(image_folder, suffixes, found))
        stored = found if together else self._files(mask_folder, "mask_dir")
        images, masks = suffixes.images(found, together), suffixes.masks(stored, together)
        chosen = [*images.values(), *masks.values()]
        without_mask = [n for n in images if n not in masks]
        without_image = [n for n in masks if n not in images]
        sides = [
            (without_mask, len(images), f"images in {image_folder} have no {self._word}"),
            (without_image, len(masks), f"{self._word}s in {mask_folder} have no image"),
        ]
        # If no image at all has a mask, names or suffixes are wrong.
        some = len(without_mask) < len(images)
        if self.missing == "empty" or (self.missing == "unlabelled" and some):
            self._tell_unpaired(sides[1:])
        else:
            only_images = some and not without_image
            likely = likely_suffixes(found, stored)
            self._tell_unpaired(sides, self._advice(likely, only_images, not some))
            images = {name: path for name, path in images.items() if name in masks}
        for files, folder in ((found, image_folder), (stored, mask_folder)):
            tell_others(files, chosen, images.keys(), folder)
        return [Pair(n, path, masks.get(n), n.rpartition("/")[0]) for n, path in images.items()]

    @property
    def _word(self) -> str:
        return "mask" if self.endings == IMAGE_SUFFIXES else "label"

    def _advice(self, likely: Sequence[Suffixes], some: bool, none: bool) -> str:
        """What to do about files without a partner: set likely suffixes, or `missing` if some images have masks.

        Args:
            likely: Suffixes by which files would pair.
            some: Whether some images have masks, and all masks have images.
            none: Whether no image has a mask.
        """
        if likely:
            return f"Set data.options: {in_words(likely)}"
        if some and self.missing == "refuse":
            return "Set `missing` to unlabelled to read images without a mask as unlabelled ones"
        if none:
            return _IN_A_LIST
        return ""

    def _tell_unpaired(
        self, sides: Sequence[tuple[Sequence[str], int, str]], advice: str = ""
    ) -> None:
        """Refuse, collect or log files without a partner."""
        lacking = [f"{len(s)} of {n} {text} ({list_names(s)})" for s, n, text in sides if s]
        if not lacking:
            return
        complaint = f"{', and '.join(lacking)}; expected equal names, apart from extension and `mask_suffix`"
        if advice and self._word == "mask":
            complaint += f". {advice}"
        if self._word == "label":
            choices = "empty for images in which nothing is annotated, or " * (len(sides) > 1)
            complaint = (
                f"{', and '.join(lacking)}; expected equal names, apart from extension. Set missing: {choices}"
                "skip to leave them out"
            )
        if self.missing == "skip":
            _log.warning("%s; they are left out", ", and ".join(lacking))
        elif self.unpaired is None:
            raise ValueError(complaint)
        else:
            self.unpaired.append(complaint)

    def _files(self, folder: Path, option: str) -> dict[str, Path]:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder. {missing_folders(self.root, self.image_dir, self.mask_dir)}"
            )
        files: dict[str, Path] = {}
        of_images = option == "image_dir"
        suffixes = (*IMAGE_SUFFIXES, ARRAY_SUFFIX) if of_images else tuple(self.endings)
        for path in sorted(map(Path, visible_files(folder, suffixes, any_case=True))):
            if path.name in _NO_LABELS:
                continue
            # One form of letters with accents: file systems and lists write them in two.
            name = normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
            if name in files:
                raise ValueError(f"{files[name]} and {path} have the same name. Keep one of them")
            files[name] = path
        if not files:
            what = "image" if of_images or self._word == "mask" else "label"
            unread = unread_pictures(folder)
            raise FileNotFoundError(
                f"{folder} holds no {what} files; expected one of {', '.join(suffixes)}"
                + (f". {unread}" if unread else "")
            )
        tell_unread(folder)
        return files

    def _listed(self, list_path: Path) -> list[Pair]:
        if not list_path.is_file():
            raise FileNotFoundError(f"{list_path}: no such list file. Set `list_file`")
        images, masks = self.root / self.image_dir, self._masks(self.root)
        return listed_pairs(
            list_path,
            self.root,
            images if images.is_dir() else None,
            lambda: self._files(images, "image_dir"),
            None if masks is None else lambda: self._files(masks, "mask_dir"),
            self.mask_suffix,
            self.missing == "unlabelled",
        )


def _with_training(folders: Iterable[str]) -> bool:
    return any(name.lower() in TRAINING for name in folders)


def _not_told_apart(folder: Path, suffixes: Suffixes, files: dict[str, Path]) -> str:
    likely = likely_suffixes(files, files)
    choice = (
        in_words(likely)
        if likely
        else "{mask_suffix: SUFFIX}, what follows an image's name in its mask's. " + _IN_A_LIST
    )
    return (
        f"{folder} is both image_dir and mask_dir, and image_suffix and mask_suffix are {suffixes.image!r}; "
        f"expected suffixes that tell images from masks. Set data.options: {choice}"
    )


def check_held_out(split: str, root: Path) -> None:
    """Refuse a split other than those that are made by holding samples out."""
    if split not in HELD_OUT_SPLITS:
        raise ValueError(f"{root} has no split folders: {unknown('split', split, HELD_OUT_SPLITS)}")


def held_out_names(
    names: Sequence[str], split: str, fraction: float, seed: int, root: Path
) -> Sequence[str]:
    """The names of a split where nothing splits them: all, or those that are held out or not.

    Raises:
        ValueError: There is no such split, or no name is in it.
    """
    check_held_out(split, root)
    if split == "all":
        return names
    kept = [name for name in names if _is_held_out(name, fraction, seed) == (split == "val")]
    if not kept:
        raise ValueError(
            f"split {split!r} has none of the {len(names)} samples in {root}, with "
            f"val_fraction {fraction}. Change it, or name the samples in a list_file"
        )
    return kept


def _is_held_out(name: str, fraction: float, seed: int) -> bool:
    return key_number("hold-out", seed, name) < fraction * 2**63
