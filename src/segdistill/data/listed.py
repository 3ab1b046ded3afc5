"""The samples that a list file names."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from segdistill.data.pair import Pair
from segdistill.data.reading.listing import entry_path, list_lines, splits_of, without_comment
from segdistill.data.reading.opening import refuse_irregular

Files = Callable[[], dict[str, Path]]


def listed_pairs(
    list_file: Path,
    root: Path,
    image_folder: Path | None,
    images: Files,
    masks: Files | None,
    mask_suffix: str = "",
    unlabelled: bool = False,
) -> list[Pair]:
    """The samples of a list file, in its order.

    A line is a name, or an image and a mask relative to `root`; blank lines and comments count for nothing.

    Args:
        list_file: The list.
        root: The folder that every path lies in.
        image_folder: Where names lie; None: there is no such folder, so that every line holds two paths.
        images: Lists the images by their names; called once, where a line holds a name.
        masks: The masks likewise; None: masks are not read.
        mask_suffix: What follows the image's name in the mask's.
        unlabelled: A name without a mask file is an image without labels; otherwise it is refused.

    Raises:
        FileNotFoundError: A file that a line names does not exist.
        ValueError: The list is empty, names a sample twice, or a line is neither form or leads out of `root`.
    """
    entries = _Entries(list_file, root, image_folder, images, masks, mask_suffix, unlabelled)
    pairs: dict[tuple[Path, Path | None], Pair] = {}
    for number, line in list_lines(list_file):
        pair = entries.pair(f"{list_file}: entry {number}", line)
        if pair is None:
            continue
        if (pair.image, pair.mask) in pairs:
            raise ValueError(
                f"{list_file}: entry {number} names {pair.name!r} a second time; expected every sample "
                "once. Remove one of them"
            )
        pairs[pair.image, pair.mask] = pair
    if not pairs:
        raise ValueError(f"{list_file} is empty; expected a name, or `image mask`, per line")
    return list(pairs.values())


class _Entries:
    """What single lines name."""

    def __init__(
        self,
        list_file: Path,
        root: Path,
        image_folder: Path | None,
        images: Files,
        masks: Files | None,
        mask_suffix: str,
        unlabelled: bool,
    ) -> None:
        self.unlabelled = unlabelled
        self.list_file, self.root, self.image_folder = list_file, root, image_folder
        self._images, self._masks, self.mask_suffix = images, masks, mask_suffix

    @cached_property
    def images(self) -> dict[str, Path]:
        return self._images()

    @cached_property
    def masks(self) -> dict[str, Path] | None:
        return None if self._masks is None else self._masks()

    def pair(self, source: str, line: str) -> Pair | None:
        """The files of a line; None for a comment."""
        # A name may contain what begins a comment.
        for text in dict.fromkeys((line, without_comment(line))):
            if not text:
                return None
            found = self._two_files(source, text) or self._named(text)
            if found is not None:
                return found
        self._refuse(source, without_comment(line))
        return None

    def _two_files(self, source: str, text: str) -> Pair | None:
        found = []
        for entries in splits_of(text):
            try:
                image, mask = (entry_path(self.root, entry, source) for entry in entries)
            except ValueError:  # explained if no other way of reading the line fits
                continue
            if image.is_file() and (self._masks is None or mask.is_file()):
                name = image.relative_to(self.root).with_suffix("").as_posix()
                used = None if self._masks is None else mask
                found.append(Pair(name, image, used, name.rpartition("/")[0]))
        if len(found) > 1:
            raise ValueError(
                f"{source} is {text!r}, which names files in {len(found)} ways; expected one. Separate image "
                "and mask by a tab"
            )
        return found[0] if found else None

    def _named(self, text: str) -> Pair | None:
        if self.image_folder is None and " " in text:
            return None
        name = self._name(text)
        if name is None:
            return None
        mask = None
        if self.masks is not None:
            mask = self.masks.get(name + self.mask_suffix)
            if mask is None and not self.unlabelled:
                raise FileNotFoundError(f"{self.list_file} names {text!r}, which has no mask file")
        return Pair(name, self.images[name], mask, name.rpartition("/")[0])

    def _name(self, text: str) -> str | None:
        """The key of an image: its name, with or without extension and folder."""
        text = normalize("NFC", text)
        plain = text if text in self.images else text.replace("\\", "/").lstrip("/")
        plain = plain.removeprefix("./")
        keys = [plain, Path(plain).with_suffix("").as_posix()]
        if self.image_folder is not None and self.image_folder != self.root:
            prefix = self.image_folder.relative_to(self.root).as_posix() + "/"
            keys += [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
        return next((key for key in keys if key in self.images), None)

    def _refuse(self, source: str, text: str) -> None:
        """Say why a line names nothing."""
        parts = splits_of(text)
        if not parts:
            entry_path(self.root, text, source)
            raise FileNotFoundError(f"{self.list_file} names {text!r}, which has no image file")
        if len(parts) > 1:
            raise ValueError(f"{source} is {text!r}; expected `image mask`")
        for entry, kind in zip(parts[0], ("image", "mask"), strict=True):
            path = entry_path(self.root, entry, source)
            if not path.exists() and not path.is_symlink():
                raise FileNotFoundError(f"{source}: no such file {path}")
            refuse_irregular(path, kind)
