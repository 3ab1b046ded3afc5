"""Masks and overlays with a mark, so that `predict` writes over its own files and nobody else's."""

import hashlib
import json
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segdistill.run.folder import write_atomically

_KEY = "segdistill"
_OVERLAY = b"overlay by segdistill"
_LEGEND = {"id", "name", "colour"}


def write_mask(mask: Image.Image, path: Path) -> None:
    """Write a mask as PNG with a digest of its pixels, which one that somebody corrects no longer has."""
    mark, content = PngInfo(), BytesIO()
    mark.add_text(_KEY, _digest(mask))
    mask.save(content, "PNG", pnginfo=mark)
    write_atomically(path, content.getvalue())


def write_overlay(overlay: Image.Image, path: Path) -> None:
    """Write an overlay as JPEG with a comment that says what it is."""
    content = BytesIO()
    overlay.save(content, "JPEG", quality=92, comment=_OVERLAY)
    write_atomically(path, content.getvalue())


def refuse_others(paths: Iterable[Path]) -> None:
    """Refuse to write over files that `predict` did not write, or that were changed since.

    Raises:
        ValueError: One is there; nothing was written yet.
    """
    others = [path for path in paths if os.path.lexists(path) and not _is_own(path)]
    if others:
        more = f", and {len(others) - 1} more" if others[1:] else ""
        raise ValueError(
            f"{others[0]}{more}: predict did not write what is there, or it was changed since; expected files that "
            "may be replaced. Write to another folder, or remove them"
        )


def _is_own(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            return _is_legend(path)
        with Image.open(path) as image:
            if path.suffix == ".jpg":
                return image.info.get("comment") == _OVERLAY
            return image.info.get(_KEY) == _digest(image)
    except (OSError, ValueError, SyntaxError):  # it is no image or cannot be read
        return False


def _is_legend(path: Path) -> bool:
    content = json.loads(path.read_text(encoding="utf-8"))
    entries = content if isinstance(content, list) else [None]
    return all(isinstance(entry, dict) and entry.keys() == _LEGEND for entry in entries)


def _digest(mask: Image.Image) -> str:
    return hashlib.sha256(f"{mask.mode} {mask.size} ".encode() + mask.tobytes()).hexdigest()
