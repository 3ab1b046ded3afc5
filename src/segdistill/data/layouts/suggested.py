"""What to set where the files of a folder lie otherwise than declared, as their names suggest."""

import re
from pathlib import Path

from segdistill.data.dataset import list_names


def missing_folders(root: Path, image_dir: str, mask_dir: str | None) -> str:
    """What a root holds in place of the declared folders, and the options that its names suggest."""
    there = list_names(sorted(path.name for path in root.iterdir()), 8)
    options = likely_options(root, image_dir, mask_dir)
    return f"{root} holds {there or 'nothing'}. Set data.options: {options}"


def likely_options(root: Path, image_dir: str, mask_dir: str | None) -> str:
    """`image_dir` and `mask_dir` as the names of the folders suggest."""
    folders = [path.name for path in folders_in(root)]
    image = image_dir if image_dir in folders else None
    mask = mask_dir if mask_dir in folders else None
    rest = [name for name in folders if name not in (image, mask)]
    likely = [name for name in rest if re.search("mask|label|annot|seg|gt", name.lower())]
    if mask is None and len(likely) == 1:
        mask = likely[0]
        rest.remove(mask)
    if image is None and len(rest) == 1:
        image = rest[0]
    options = f"image_dir: {image or 'FOLDER'}"
    return f"{{{options}}}" if mask_dir is None else f"{{{options}, mask_dir: {mask or 'FOLDER'}}}"


def folders_in(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
