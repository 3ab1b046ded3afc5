"""Digests of content: of files, remembered by time and size, and of a network's state."""

import hashlib
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from inspect import isroutine
from pathlib import Path

import torch
from torch import Tensor, nn

from segdistill.data.caching import cache_folder
from segdistill.data.reading.opening import stamp
from segdistill.models.contract import network
from segdistill.run.folder import file_sha256

_SETTLED = 2.0
"""Seconds after which a file's times are trusted to change with its content."""


def file_digests(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file's content, in hexadecimal.

    Digests are remembered from call to call under the user's cache folder. Path, size, inode and both times
    of a file are only the key to its remembered digest: a file that was touched is read again.

    Raises:
        OSError: A file cannot be read.
    """
    stamps = [stamp(path) for path in paths]
    known = _recall(paths)
    digests = [
        entry[1] if (entry := known.get(str(path))) and entry[0] == stamp else None
        for path, stamp in zip(paths, stamps, strict=True)
    ]
    missing = [place for place, digest in enumerate(digests) if digest is None]
    with ThreadPoolExecutor() as pool:
        fresh = dict(zip(missing, pool.map(file_sha256, [paths[i] for i in missing]), strict=True))
    _remember((paths[place], stamps[place], digest) for place, digest in fresh.items())
    return [fresh[place] if digest is None else digest for place, digest in enumerate(digests)]


def _memory() -> sqlite3.Connection:
    base = cache_folder()
    base.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(base / "digests.sqlite", timeout=5)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, stamp TEXT, digest TEXT)"
    )
    connection.execute("CREATE TABLE IF NOT EXISTS facts (fact TEXT PRIMARY KEY)")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS answers (question TEXT PRIMARY KEY, answer TEXT)"
    )
    return connection


def _recall(paths: Sequence[Path]) -> dict[str, tuple[str, str]]:
    """Stamp and digest by path; empty where nothing can be remembered."""
    found: dict[str, tuple[str, str]] = {}
    try:
        with closing(_memory()) as memory:
            for first in range(0, len(paths), 500):
                some = [os.path.abspath(path) for path in paths[first : first + 500]]
                marks = ",".join("?" * len(some))
                rows = memory.execute(
                    f"SELECT path, stamp, digest FROM digests WHERE path IN ({marks})",
                    some,
                )
                found.update({path: (stamp, digest) for path, stamp, digest in rows})
    except (
        sqlite3.Error,
        OSError,
        RuntimeError,
    ):  # no home, read-only, damaged: nothing is remembered
        return {}
    return {str(path): found[full] for path in paths if (full := os.path.abspath(path)) in found}


def _remember(entries: Iterable[tuple[Path, str, str]]) -> None:
    # A file written this instant may change again without a new time.
    now = time.time_ns()
    settled = [
        (os.path.abspath(path), stamp, digest)
        for path, stamp, digest in entries
        if now - max(map(int, stamp.split()[1:3])) > _SETTLED * 1e9
    ]
    try:
        with closing(_memory()) as memory, memory:
            memory.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", settled)
    except (sqlite3.Error, OSError, RuntimeError):
        return


def known_fact(fact: str) -> bool:
    """Whether `remember_fact` was told this, in this process or an earlier one."""
    try:
        with closing(_memory()) as memory:
            row = memory.execute("SELECT 1 FROM facts WHERE fact = ?", (fact,)).fetchone()
    except (sqlite3.Error, OSError, RuntimeError):
        return False
    return row is not None


def remember_fact(fact: str) -> None:
    """Keep what was found out about a content, named by its digest."""
    try:
        with closing(_memory()) as memory, memory:
            memory.execute("INSERT OR REPLACE INTO facts VALUES (?)", (fact,))
    except (sqlite3.Error, OSError, RuntimeError):
        return


def known_answer(question: str) -> str | None:
    """What `remember_answer` was told, in this process or an earlier one; None if nothing."""
    try:
        with closing(_memory()) as memory:
            query = "SELECT answer FROM answers WHERE question = ?"
            row = memory.execute(query, (question,)).fetchone()
    except (sqlite3.Error, OSError, RuntimeError):
        return None
    return None if row is None else str(row[0])


def remember_answer(question: str, answer: str) -> None:
    """Keep what was measured of a content; the question names it by its digest."""
    try:
        with closing(_memory()) as memory, memory:
            memory.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (question, answer))
    except (sqlite3.Error, OSError, RuntimeError):
        return


def state_digest(model: nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers: names, types, shapes and values.

    Adapters of `wrap` and `torch.compile` do not count; the module inside them does.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network(model).state_dict().items()):
        digest.update(name.encode() + b"\0")
        update_with(digest, value)
    return digest.hexdigest()


def settings_of(model: nn.Module) -> dict[str, str]:
    """What a network computes with besides its state: a digest for each attribute of its modules.

    Two networks of equal state may differ in a dilation, an activation without parameters or a buffer that
    is not saved. A digest for each name, not one for all, tells what differs, and an attribute that a newer
    version of a library adds makes no difference to an older run.

    Args:
        model: The network; adapters of `wrap` count only for where they say that logits lie.

    Returns:
        Attribute -> digest of its values over all modules; "layers" for their classes, "buffers" for those
        that are not saved, "geometry" for `align_corners`, `multiple_of` and `cells`.
    """
    digests: dict[str, hashlib._Hash] = defaultdict(hashlib.sha256)
    for path, module in network(model).named_modules():
        digests["layers"].update(f"{path} {type(module).__name__}\n".encode())
        for name, value in sorted(vars(module).items()):
            if name[0] != "_" and name != "training" and (text := _setting(value)) is not None:
                digests[name].update(f"{path} {text}\n".encode())
        for name in sorted(module._non_persistent_buffers_set):
            digests["buffers"].update(f"{path} {name}\n".encode())
            update_with(digests["buffers"], getattr(module, name))
    geometry = [getattr(model, name, None) for name in ("align_corners", "multiple_of", "cells")]
    digests["geometry"].update(repr(geometry).encode())
    return {name: digest.hexdigest()[:16] for name, digest in sorted(digests.items())}


def _setting(value: object) -> str | None:
    """A plain value, or a function by its name; None for anything else."""
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    if isinstance(value, tuple | list):
        parts = [_setting(one) for one in value]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    return getattr(value, "__qualname__", None) if isroutine(value) else None


def update_with(digest: "hashlib._Hash", value: object) -> None:
    """Add a tensor's type, shape and values to a digest; anything else by its `repr`."""
    if not isinstance(value, Tensor):
        digest.update(repr(value).encode())
        return
    plain = value.detach().cpu().contiguous()
    digest.update(f"{plain.dtype} {tuple(plain.shape)} ".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
