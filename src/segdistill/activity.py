"""What this process is doing: for messages about what went wrong there, and for whoever watches over it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Activity:
    """One thing that is being done.

    Attributes:
        what: In words that follow "while", such as "measuring the teacher".
        detail: What of it: a file, an image, a step.
        since: When it began, in seconds of the monotonic clock.
        moved: When it last got on.
    """

    what: str
    detail: str = ""
    since: float = 0.0
    moved: float = 0.0

    def __str__(self) -> str:
        return f"{self.what} ({self.detail})" if self.detail else self.what


_stack: list[Activity] = []
_failed: list[str] = []


@contextmanager
def doing(what: str, detail: str = "") -> Iterator[Activity]:
    """Note what is done within; an exception that leaves it keeps the note for `last_activity`.

    Args:
        what: In words that follow "while".
        detail: What of it; `get_on` changes it.
    """
    now = time.monotonic()
    activity = Activity(what, detail, now, now)
    if not _stack:
        _failed.clear()
    _stack.append(activity)
    try:
        yield activity
    except BaseException:
        _failed[:] = _failed or [str(activity)]
        raise
    finally:
        _stack.remove(activity)


def get_on(detail: str = "") -> None:
    """Note that what is being done got on, and with what."""
    if _stack:
        _stack[-1].moved = time.monotonic()
        _stack[-1].detail = detail or _stack[-1].detail


def current_activity() -> Activity | None:
    """The innermost thing that is being done."""
    return _stack[-1] if _stack else None


def last_activity() -> str:
    """What is being done, or was when an exception left it; "" where nothing was noted."""
    return str(_stack[-1]) if _stack else (_failed[0] if _failed else "")
