"""The arguments of a command: in any order, and mistakes among them explained in the user's own form."""

import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser

from segdistill.names import shortened, size_in, unknown

BOOL = ("true", "false", "yes", "no")


class Parser(ArgumentParser):
    """Takes options before, between and after the words; `--flag` alone is `--flag true`."""

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """As jsonargparse does, which gives the words before the first option to all positionals."""
        return super().parse_args(self._words_first(args), *more, **kwargs)

    def _words_first(self, argv: Sequence[str]) -> list[str]:
        words, options, left = [], [], list(argv)
        while left:
            word = left.pop(0)
            if not word.startswith("--"):
                words.append(word)
                continue
            name, equals, _ = word.partition("=")
            action = self._option_string_actions.get(name)
            if action is None:
                known = [n for n in self._option_string_actions if n.startswith("--")]
                raise ArgumentError(None, unknown("option", name, known))
            count = 0
            if action.nargs in ("*", "+"):
                count = next((i for i, w in enumerate(left) if w.startswith("--")), len(left))
            elif takes_bool(action) and not equals:
                flag = left.pop(0) if left and left[0].lower() in BOOL else "true"
                word = f"{name}={flag}"
            elif action.nargs is None and not equals:
                count = 1
            given = [word, *left[:count]]
            options += [_as_list(w) for w in given] if _takes_size(action) else given
            del left[:count]
        return [*words, *options]


def _takes_size(action: Any) -> bool:
    kind = getattr(action, "_typehint", None)
    return tuple[int, int] in (kind, *get_args(kind))


def _as_list(word: str) -> str:
    """The size 512x1024, as `suggest` takes it, in the form [512,1024]."""
    name, equals, text = word.rpartition("=")
    size = size_in(text)
    return word if size is None else f"{name}{equals}[{size[0]},{size[1]}]"


def takes_bool(action: Any) -> bool:
    """Whether an option is a flag: true, false or, if optional, neither."""
    kind = getattr(action, "_typehint", None)
    return bool in (kind, *get_args(kind))


def in_words(error: ArgumentError, annotations: dict[str, Any], words: Sequence[str] = ()) -> str:
    """jsonargparse's message about a value in the form that the user gives it.

    Args:
        error: What jsonargparse raised.
        annotations: The type of each argument.
        words: Names of those that are given without their name.

    Example:
        >>> error = ArgumentError(None, 'Parser key "size": Expected a tuple. Got value: 64')
        >>> in_words(error, {"size": tuple[int, int] | None})
        '--size is 64; expected height x width in pixels, such as 512x1024'
    """
    text = " ".join(str(error).split())
    if missing := re.search(r"arguments are required: (\w+)\.(\w+)", text):
        command, name = missing.groups()
        return f"{name} is missing; expected segdistill {command} {name.upper()}"
    found = re.fullmatch(r'Parser key "(\w+)"(?: element \d+)?:.*(?:Got|Given) value: ?(.*)', text)
    if found is None or found[1] not in annotations:
        return text
    name = found[1] if found[1] in words else f"--{found[1]}"
    kind = _kind(annotations[found[1]])
    if get_origin(kind) is Literal:
        return f"{name}: {unknown('choice', found[2], get_args(kind))}"
    value = shortened(found[2], 100) or "empty text"
    return f"{name} is {value}; expected {_FORMS.get(kind, kind)}"


def _kind(annotation: Any) -> Any:
    """What a value may be, where it may also be left out or be one of several."""
    if get_origin(annotation) in (list, Sequence):
        return get_args(annotation)[0]
    several = get_args(annotation)
    return next((k for k in several if NoneType in several and k is not NoneType), annotation)


_FORMS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    tuple[int, int]: "height x width in pixels, such as 512x1024",
    tuple[float, ...]: "a list, such as [0.75,1.0]",
}
