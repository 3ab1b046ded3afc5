"""The file that a training resumes from: written whole or not at all, checked when read."""

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
"""Every file that may hold the state of a run, newest first."""


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `resume.ckpt`, keeping the one before as `resume.previous.ckpt`.

    The content is followed by its SHA-256, so that a damaged file is noticed. At every instant one
    of the two files is complete.

    Raises:
        OSError: The disk is full or the folder not writable; the files that were there still are.
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
    """The newest undamaged state, or None where there is none to resume from.

    A file whose checksum does not match is passed over with a warning. Nothing but tensors and plain
    values is unpickled.
    """
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        body, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            _log.warning("%s is damaged (checksum differs); falling back to the one before", path)
            continue
        state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        return state
    return None


def drop_checkpoints(folder: Path) -> None:
    """Remove what a finished run no longer needs to resume from."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether a run left any state, damaged or not: its folder is then no other recipe's."""
    return any((folder / name).exists() for name in FILES)
