"""Which files are images and which are masks, where suffixes of their names say it."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from segdistill.data.dataset import list_names

_log = logging.getLogger(__name__)

Files = Mapping[str, Path]
"""Files by their names without extension."""


class Suffixes(NamedTuple):
    """What follows the sample's name in the names of images and of masks, before the extension."""

    image: str
    mask: str

    def images(self, files: Files, together: bool) -> dict[str, Path]:
        """The images by their sample's name.

        Args:
            files: The files in the folder of images.
            together: Whether the masks lie there, too.
        """
        other = self.mask if together and len(self.mask) >= len(self.image) else ""
        return _ending(files, self.image, other)

    def masks(self, files: Files, together: bool) -> dict[str, Path]:
        """The masks by their sample's name; arguments are those of `images`."""
        other = self.image if together and len(self.image) > len(self.mask) else ""
        return _ending(files, self.mask, other)


def _ending(files: Files, suffix: str, other: str) -> dict[str, Path]:
    """The files with a suffix, unless they have the other."""
    return {
        name.removesuffix(suffix): path
        for name, path in files.items()
        if name.endswith(suffix) and name != suffix and not (other and name.endswith(other))
    }


def tell_others(
    files: Files, chosen: Collection[Path], names: Collection[str], folder: Path
) -> None:
    """Log the other pictures of samples, and refuse files that belong to none.

    Args:
        files: The files in a folder.
        chosen: Those that are images or masks.
        names: Names of the samples.
        folder: The folder, for messages.

    Raises:
        ValueError: A file is neither chosen nor has a name that begins with a sample's.
    """
    taken = set(chosen)
    others = [name for name, path in files.items() if path not in taken]
    strays = [name for name in others if not _begins(name, names)]
    if strays:
        raise ValueError(
            f"{len(strays)} of {len(files)} files in {folder} belong to no image and mask ({list_names(strays)}); "
            "expected names with the image_suffix or mask_suffix of the recipe. Remove them, or correct the "
            "suffixes"
        )
    if others:
        _log.info(
            "%d other files in %s are not read (%s)", len(others), folder, list_names(others, 3)
        )


def _begins(name: str, names: Collection[str]) -> bool:
    return any(name[:end] in names for end in range(1, len(name)))
