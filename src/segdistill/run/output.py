"""Folders that commands write to."""

from pathlib import Path


def output_folder(out: str | Path) -> Path:
    """A folder to write to, made where it does not exist.

    Raises:
        ValueError: It cannot be written to.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}): name another folder"
        ) from None
    return folder
