"""Locks that let only one process at a time write to a folder."""

import errno
import json
import os
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segdistill.run.contents import read_file
from segdistill.run.contents.shapes import CONTENT, number, record, text, whole

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_STALE = 24 * 3600
"""Age in seconds after which a lock file of another machine is considered stale."""
_UNWRITTEN = 60.0
"""Age in seconds after which a lock file that says nothing is considered stale."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_held: Counter[tuple[Path, str]] = Counter()


class FolderInUse(ValueError):
    """Another process writes to the folder."""


@contextmanager
def writing(folder: str | Path, what: str = "") -> Iterator[None]:
    """Lock an existing folder for this process while it is written to.

    The operating system holds the lock, so that it ends with the process, even if killed. If the file
    system or the operating system has no such locks, a file with machine, process and age is used
    instead. A process may lock the same folder several times. In a distributed training the first
    process holds the lock for all.

    Args:
        folder: The folder.
        what: Name of the output, if other output may be written to the folder at the same time.

    Raises:
        FolderInUse: Another process holds the lock; the message names machine, process, age and command.
    """
    path = Path(folder).resolve() / f".{what}lock"
    key = (path, threading.current_thread().name)
    if os.environ.get("RANK", "0") != "0" or _held[key]:
        _held[key] += 1
        try:
            yield
        finally:
            _held[key] -= 1
        return
    if any(count for (held, _), count in _held.items() if held == path):
        raise _in_use(path)  # by another thread, which the system's lock would not stop
    release = _take(path)
    _held[key] += 1
    if not what:
        _clear_leftovers(path.parent)
    try:
        yield
    finally:
        _held[key] -= 1
        release()


def _clear_leftovers(folder: Path) -> None:
    """Remove partial files left by a kill; no other process writes here now."""
    for pattern in (".*.tmp", ".writable-*"):
        for file in folder.glob(pattern):
            with suppress(OSError):
                file.unlink()


def _take(path: Path) -> Callable[[], None]:
    """Acquire the lock at a path; return the function that releases it."""
    if fcntl is None:
        return _take_by_file(path)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Not flock, which forked loader workers would inherit and keep after the training is killed.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return _take_by_file(path)
            raise _in_use(path) from None
        if _is_at(descriptor, path):
            break
        os.close(descriptor)  # the last holder removed the file between opening and locking
    holder = _holder_file(path)
    with suppress(OSError):  # the file only names the holder
        holder.unlink(missing_ok=True)  # what is no file, such as a pipe, may never answer
        holder.write_text(json.dumps(_holder()))

    def release() -> None:
        for file in (holder, path):
            with suppress(OSError):  # the folder may be gone
                file.unlink()
        os.close(descriptor)

    return release


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _take_by_file(path: Path) -> Callable[[], None]:
    holder = _holder_file(path)
    for _ in range(2):
        try:
            with open(holder, "x") as file:
                json.dump(_holder(), file)
        except FileExistsError:
            if not _left_behind(path):
                raise _in_use(path) from None
            holder.unlink(missing_ok=True)
        else:
            return lambda: holder.unlink(missing_ok=True)
    raise _in_use(path)


def _left_behind(path: Path) -> bool:
    """Whether a lock file is stale: its process is gone or, on another machine, it is too old."""
    holder = _read_holder(path)
    if not holder:  # its writer has just begun, or was killed while writing
        return time.time() - _changed(_holder_file(path)) > _UNWRITTEN
    if holder.get("machine") != platform.node():
        return time.time() - float(holder["since"]) > _STALE
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _holder() -> dict[str, Any]:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "machine": platform.node(),
        "process": os.getpid(),
        "since": time.time(),
        "command": command[:200],
    }


def _read_holder(path: Path) -> dict[str, Any]:
    """What the holder wrote of itself; empty if that cannot be read."""
    try:
        values = json.loads(read_file(_holder_file(path)) or b"")
    except (OSError, ValueError, RecursionError):
        return {}
    return {} if _HOLDER(values, CONTENT) else dict(values)


_HOLDER = record(
    {"machine": text, "process": whole(1, 2**31 - 1), "since": number(0)}, {"command": text}
)


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _in_use(path: Path) -> FolderInUse:
    holder = _read_holder(path)
    who = "another process"
    if holder:
        minutes = max(0, round((time.time() - float(holder["since"])) / 60))
        who = (
            f"process {holder['process']} on {holder['machine']} for {minutes} min "
            f"({holder.get('command', '')})"
        )
    return FolderInUse(
        f"{path.parent} is being written to by {who}. Wait for that process, or name another folder"
    )
