"""Opening image files: only regular ones, of one page; whatever is wrong is one line with a remedy."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

# What Pillow opens by content, whatever the suffix: not EPS, which runs a program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class _Unusable(ValueError):
    """A fault of a file that is already explained."""


@contextmanager
def opened(path: Path | str, kind: str = "image") -> Iterator[Image.Image]:
    """An image file of one page, its pixels not yet decoded. Whatever goes wrong inside is explained.

    Args:
        path: The file; nothing but a regular file is opened, since a pipe may never answer.
        kind: `image` or `mask`, for messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, not a regular file or not an image, too large, or has several pages.
    """
    try:
        refuse_irregular(path, kind)
        with Image.open(path, formats=_FORMATS) as image:
            _refuse_pages(path, kind, image)
            yield image
    except (FileNotFoundError, MemoryError, _Unusable):
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large(path, kind, error)) from None
    except Exception as error:
        # Pillow raises many classes on damaged files.
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(_unreadable(path, kind, cause)) from None


def refuse_irregular(path: Path | str, kind: str = "image") -> None:
    """Refuse what cannot be read as a file: a folder, a pipe, a socket, a device, nothing at all.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a regular file, or it is empty.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        broken = os.path.islink(path)
        what = (
            f"the {kind} is a link to a file that does not exist"
            if broken
            else f"no such {kind} file"
        )
        raise FileNotFoundError(f"{path}: {what}") from None
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable(
            f"{path}: the {kind} is a {irregular(status.st_mode)}; expected a regular file. Replace or "
            "remove it"
        )
    if not status.st_size:
        raise _Unusable(_unreadable(path, kind, "it is empty"))


def _unreadable(path: Path | str, kind: str, cause: str) -> str:
    return (
        f"{path}: cannot read this {kind} ({cause}). "
        "The file is damaged or not an image: replace or remove it"
    )


def irregular(mode: int) -> str:
    """What a path is that is not a regular file, by its mode."""
    kinds = {
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFLNK: "link",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def _refuse_pages(path: Path | str, kind: str, image: Image.Image) -> None:
    # A photograph of several lenses (MPO) begins with the picture that viewers show.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames < 2:
        return
    pages = frames
    if image.format == "TIFF":
        pages = sum(_is_page(image, frame) for frame in range(min(frames, 64)))
        image.seek(0)
    if pages > 1:
        raise _Unusable(
            f"{path}: the {kind} has {pages} pages; expected one. Save each page as a file of its own"
        )


def _is_page(image: Image.Image, frame: int) -> bool:
    """Whether a page of a TIFF is a picture of its own, not a smaller copy or a mask of another."""
    image.seek(frame)
    tags = getattr(image, "tag_v2", {})
    return not int(tags.get(254, 0)) & 0b101


def _too_large(path: Path | str, kind: str, error: Exception) -> str:
    pixels = [int(number) / 1e6 for number in re.findall(r"\d+", str(error))[:2]]
    size, most = (f"{number:.0f}" for number in (*pixels, 0, 0)[:2])
    return (
        f"{path}: the {kind} has {size} megapixels; expected at most {most}. Cut images and masks into "
        "tiles, or scale both down"
    )


def stamp(path: Path) -> str:
    """What changes with a file's content, short of reading it: size, both times and inode."""
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
