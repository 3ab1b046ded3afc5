"""The checkpoint that a training resumes from: written atomically, verified when read."""

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from segdistill.run.folder import sync_folder, write_atomically

_log = logging.getLogger(__name__)
NEWEST, PREVIOUS = "resume.ckpt", "resume.previous.ckpt"
_DIGEST = 32
FILES = (f".{NEWEST}.new", NEWEST, PREVIOUS)
"""All files that may hold a run's state, newest first."""


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
    fresh = folder / FILES[0]
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
    """
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        body, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            _log.warning("%s is damaged (checksum differs); using the previous checkpoint", path)
            continue
        state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        return state
    return None


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a run's state, damaged or not, and so belongs to its recipe."""
    return any((folder / name).exists() for name in FILES)
