"""What to set where the files of a folder lie otherwise than declared, as their names suggest."""

import re
from pathlib import Path

from segdistill.data.dataset import list_names
from segdistill.data.reading.listing import visible_files


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


def folders_in(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
