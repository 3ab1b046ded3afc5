"""The files of a data set: those in a folder, and those that a list names."""

import codecs
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path, PureWindowsPath

from segdistill.data.reading.opening import irregular

_FOREIGN = (
    "__macosx",
    "__pycache__",
    "@eadir",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "lost+found",
    "recycler",
    "system volume information",
)
"""Folders that an operating system writes beside the user's files, with pictures of its own; in lower case."""
_UNREAD = frozenset(
    [
        ".heic",
        ".heif",
        ".avif",
        ".gif",
        ".jp2",
        ".j2k",
        ".jpx",
        ".jxl",
        ".tga",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".psd",
        ".exr",
        ".hdr",
        ".raw",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
    ]
)
"""Endings of pictures in formats that are not read."""
_SHOWN = 3

_log = logging.getLogger(__name__)


def visible_files(
    folder: Path | str, endings: Sequence[str], any_case: bool = False, deep: bool = True
) -> list[str]:
    """Files in a folder and its subfolders whose names have one of these endings.

    Hidden files and folders (`.ipynb_checkpoints`, `._a.png`) are left out, and so are those of operating
    systems. Links to files are followed, links to folders inside are not.

    Args:
        folder: Where to look.
        endings: Endings of names, such as `.png`; in lower case with `any_case`.
        any_case: Whether upper and lower case are the same.
        deep: Whether to look in subfolders, too.

    Returns:
        Their paths: the files of a folder in order, then those of its subfolders. Text, since Path takes
        fifteen times as long for the 118,287 files of COCO.

    Raises:
        ValueError: Something with such an ending is no regular file: a named pipe, a socket, a device, or
            a link to nothing. It would be missing later, or never answer.
    """
    found: list[str] = []
    irregular_files: list[str] = []
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as scanned:
            entries = sorted((one for one in scanned if _visible(one.name)), key=lambda e: e.name)
        inside = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        waiting += [entry.path for entry in reversed(inside) if deep]
        for entry in entries:
            name = entry.name.lower() if any_case else entry.name
            # Links are asked by their path, since a circle of them raises here; others cost no question.
            asked = Path(entry.path) if entry.is_symlink() else entry
            if not name.endswith(tuple(endings)) or asked.is_dir():
                continue
            if asked.is_file():
                found.append(entry.path)
            else:
                irregular_files.append(f"{entry.path} ({_kind(entry)})")
    if irregular_files:
        more = len(irregular_files) - _SHOWN
        raise ValueError(
            f"{folder} holds what is not a regular file: {', '.join(irregular_files[:_SHOWN])}"
            f"{f' and {more} more' if more > 0 else ''}; expected image files. Replace or remove it"
        )
    return found


def unread_pictures(folder: Path | str, deep: bool = True) -> str:
    """Pictures in a folder whose formats are not read, in one line; "" if there are none.

    Args:
        folder: Where to look; hidden files are left out.
        deep: Whether to look in subfolders, too.
    """
    counts = Counter(os.path.splitext(path)[1].lower() for path in _all_files(folder, deep))
    unread = [(ending, count) for ending, count in counts.most_common() if ending in _UNREAD]
    if not unread:
        return ""
    kinds = ", ".join(f"{ending} {count}" for ending, count in unread)
    return f"{folder}: pictures of these formats are not read: {kinds}. Convert them to PNG or JPEG"


def tell_unread(folder: Path | str, deep: bool = True) -> None:
    """Log once that a folder holds pictures that are not read; arguments are those of `unread_pictures`."""
    if line := unread_pictures(folder, deep):
        tell_once(line)


def files_beside(folder: Path | str, known: Iterable[Path], endings: Sequence[str]) -> list[str]:
    """Paths of the files in a folder and its subfolders, inside it, that are not among those known.

    Args:
        folder: Where to look; hidden files are left out.
        known: Paths of files in it.
        endings: Endings of the names that count, in lower case.
    """
    wanted = tuple(endings)
    there = (path for path in _all_files(folder) if path.lower().endswith(wanted))
    listed = {os.path.normpath(path) for path in known}
    return sorted(os.path.relpath(p, folder) for p in there if os.path.normpath(p) not in listed)


def _all_files(folder: Path | str, deep: bool = True) -> Iterator[str]:
    """Paths of what is visible in a folder and is none itself, of whatever kind; it is not opened."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if deep and _visible(name)]
        yield from (os.path.join(parent, name) for name in files if _visible(name))


@cache
def tell_once(line: str, level: int = logging.WARNING) -> None:
    """Log a line, unless this process has logged the same."""
    _log.log(level, "%s", line)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _FOREIGN


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "a link to nothing that can be read"
    return f"a {irregular(entry.stat(follow_symlinks=False).st_mode)}"


def list_lines(list_file: Path) -> list[tuple[int, str]]:
    """The lines of a list file with their numbers, without blank lines and surrounding space.

    UTF-8 and UTF-16 are read, with or without a byte order mark, and line ends of any system.

    Args:
        list_file: The file.

    Raises:
        ValueError: It is not text.
    """
    content = list_file.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(
            f"{list_file} is not a text file; expected names in UTF-8. Save it as UTF-8"
        )
    lines = (line.strip() for line in re.split("\r\n|\r|\n", text))
    return [(number, line) for number, line in enumerate(lines, 1) if line]


def without_comment(line: str) -> str:
    """A line up to a `#` at its beginning or after a space."""
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()


def splits_of(line: str) -> list[tuple[str, str]]:
    """The ways to read a line as two entries: at a tab, or else at any space, as names may hold spaces."""
    places = list(re.finditer("\t+" if "\t" in line else r" +", line))
    return [(line[: place.start()].strip(), line[place.end() :].strip()) for place in places]


def entry_path(root: Path, entry: str, source: str) -> Path:
    """The path of a list's entry, which lies inside a folder.

    A leading slash may stand for the folder. Backslashes separate folders, unless a file has one in its
    name.

    Args:
        root: The folder.
        entry: The path as the list has it.
        source: The list and the line, for messages.

    Raises:
        ValueError: The path leads out of the folder.
    """
    path = entry.replace("\\", "/") if "\\" in entry and not (root / entry).exists() else entry
    top = os.path.abspath(root)
    full = os.path.normpath(os.path.join(top, path))
    if path.startswith("/") and not _within(full, top):
        full = os.path.normpath(os.path.join(top, path.lstrip("/")))
        if not os.path.lexists(full):
            full = path
    if not _within(full, top) or PureWindowsPath(entry).drive:
        raise ValueError(
            f"{source} is {entry!r}, which leads out of {root}; expected a path inside that folder. Write "
            "paths relative to it"
        )
    return root / os.path.relpath(full, top)


def _within(path: str, top: str) -> bool:
    return path.startswith(top.rstrip("/") + "/")
