"""The current activity of this process, for error messages and for the watchdog."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Activity:
    """One activity.

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
    """Record an activity inside the context; after an exception `last_activity` still returns it.

    When it ends, the one around it has got on.

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
        # Otherwise the time since before this one would look like a hang.
        get_on()


def get_on(detail: str = "") -> None:
    """Record progress of the current activity."""
    if _stack:
        _stack[-1].moved = time.monotonic()
        _stack[-1].detail = detail or _stack[-1].detail


def current_activity() -> Activity | None:
    """The innermost activity."""
    return _stack[-1] if _stack else None


def last_activity() -> str:
    """The current activity, or the one that an exception ended; "" if none was recorded."""
    return str(_stack[-1]) if _stack else (_failed[0] if _failed else "")
