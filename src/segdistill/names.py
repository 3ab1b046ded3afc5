"""Names that do not exist: how they are reported, and the check of options by a signature."""

import inspect
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Any


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


def check_options(
    owner: str,
    options: Iterable[str],
    maker: Callable[..., Any],
    besides: Collection[str] = (),
    strict: bool = False,
) -> None:
    """Refuses options that a class or function does not take.

    Args:
        owner: Whose options they are ("pspnet", "loss 'pixelwise'").
        options: Names of the options that were given.
        maker: What they will be passed to.
        besides: Its parameters that are no options, since the caller fills them.
        strict: Refuse what only `**kwargs` would take, too; else a maker with `**kwargs` takes any.

    Raises:
        ValueError: An option is unknown; the nearest one is named.

    Example:
        >>> check_options("round", ["ndigit"], round, besides=["number"])
        Traceback (most recent call last):
        ValueError: no option of round named 'ndigit'; did you mean 'ndigits'? (known: ndigits)
    """
    parameters = _parameters(maker)
    if parameters is None:
        return
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [p.name for p in parameters if p.kind in by_keyword and p.name not in besides]
    for option in options:
        if option not in known and (strict or not takes_any):
            raise ValueError(unknown(f"option of {owner}", option, known))


def _parameters(maker: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """None where it does not tell them, as some that are written in C."""
    try:
        return list(inspect.signature(maker).parameters.values())
    except ValueError:
        return None
