"""Break a command at one of its file operations: kill it, signal it, or let the disk be full."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segdistill.cli import main

KINDS = ("kill", "half a file", "full disk", "SIGTERM", "SIGINT")
_RENAMES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")


class Breaker:
    """Counts what a process does to the files of a folder, and breaks it at one of these operations.

    Args:
        folder: Only files in here count; those that tell how a process is doing do not.
        kind: One of `KINDS`; None only counts.
        at: Number of the operation, from 0.
        log: File to which the operations are written, a line each.
    """

    def __init__(self, folder: Path, kind: str | None, at: int, log: Path) -> None:
        self.folder, self.kind, self.at, self.log = str(folder), kind, at, log
        self.count, self.process, self.real_sync = 0, os.getpid(), os.fsync

    def install(self) -> None:
        """Watch this process from now on; there is no way back, so only in a process of its own."""
        sys.addaudithook(self._heard)
        os.fsync = self._synced

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and _writes(*arguments[1:3]):
            self._operation("open", arguments[0])
        elif event in _RENAMES:
            self._operation(event.removeprefix("os."), arguments[0])

    def _synced(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        self._operation("sync", path, lambda: _halve(descriptor))
        self.real_sync(descriptor)

    def _operation(self, name: str, path: object, halve: Callable[[], None] | None = None) -> None:
        # Loader workers inherit the hook.
        if not isinstance(path, str | os.PathLike) or os.getpid() != self.process:
            return
        text = os.fspath(path)
        if not isinstance(text, str) or not text.startswith(self.folder) or ".beat-" in text:
            return
        number, self.count = self.count, self.count + 1
        if self.kind is None:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, f"{name} {text.removeprefix(self.folder)}\n".encode())
            os.close(descriptor)
        if number == self.at:
            self._break(halve)

    def _break(self, halve: Callable[[], None] | None) -> None:
        if self.kind == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.kind == "half a file" and halve is not None:
            halve()
        if self.kind in ("kill", "half a file"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind is not None:
            os.kill(os.getpid(), getattr(signal, self.kind))


def _writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _halve(descriptor: int) -> None:
    if os.path.isfile(f"/proc/self/fd/{descriptor}"):
        os.truncate(descriptor, os.fstat(descriptor).st_size // 2)


def command(folder: Path, kind: str | None, at: int, log: Path, arguments: list[str]) -> None:
    """Run a command that breaks."""
    Breaker(folder, kind, at, log).install()
    main(arguments)
