"""Folders that commands write to."""

import os
from pathlib import Path


def output_folder(out: str | Path) -> Path:
    """A folder to write to, made where it does not exist.

    Raises:
        ValueError: It cannot be written to.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A name of its own for each process: several may look at once.
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}): name another folder"
        ) from None
    return folder
