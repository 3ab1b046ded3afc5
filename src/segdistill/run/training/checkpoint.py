"""The checkpoint that a training resumes from: written atomically, verified when read."""

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from segdistill.run.contents import read_file
from segdistill.run.folder import CHECKPOINTS, sync_folder, write_atomically

_log = logging.getLogger(__name__)
_FRESH, NEWEST, PREVIOUS = CHECKPOINTS
_DIGEST = 32


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `resume.ckpt`, keeping the previous one as `resume.previous.ckpt`.

    The content is followed by its SHA-256, so that damage is detected. At any time at least one of the
    two files is complete.

    Raises:
        OSError: The disk is full or the folder not writable; existing files are kept.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    fresh = folder / _FRESH
    write_atomically(fresh, content + hashlib.sha256(content).digest())
    newest = folder / NEWEST
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    fresh.replace(newest)
    sync_folder(folder)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Load the newest undamaged state; None if there is no state to resume from.

    A file whose checksum does not match is skipped with a warning. Only tensors and plain values are
    unpickled.

    Raises:
        Damaged: There is something else than a file in the place of one.
    """
    damaged = False
    for name in CHECKPOINTS:
        path = folder / name
        content = read_file(path)
        if content is None:
            continue
        body, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            _log.warning("%s is damaged (its checksum differs) and is skipped", path)
            damaged = True
            continue
        state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        return state
    if damaged:
        _log.warning("%s has no checkpoint that can be read: its training begins again", folder)
    return None


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a run's state, damaged or not, and so belongs to its recipe."""
    return any((folder / name).exists() for name in CHECKPOINTS)
