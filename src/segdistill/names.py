"""What to tell somebody who asked for a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line naming what was asked for, the nearest existing name, and the existing names.

    Where more than thirty exist only the ten nearest are listed.

    Args:
        kind: What is being looked up, in the singular ("loss", "tap").
        name: The name that was asked for.
        known: The names that exist.
    """
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    label = "known"
    if len(names) > 30:
        names, label = get_close_matches(name, names, n=10, cutoff=0.0), "nearest"
    return f"no {kind} named {name!r}{hint} ({label}: {', '.join(names) or 'none'})"
