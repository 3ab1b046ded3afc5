"""The words of a command line, in any order."""

from collections.abc import Sequence
from typing import Any, get_args

from jsonargparse import ArgumentError, ArgumentParser

from segdistill.names import unknown

_BOOL = ("true", "false", "yes", "no")


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
                given = left.pop(0) if left and left[0].lower() in _BOOL else "true"
                word = f"{name}={given}"
            elif action.nargs is None and not equals:
                count = 1
            options += [word, *left[:count]]
            del left[:count]
        return [*words, *options]


def takes_bool(action: Any) -> bool:
    """Whether an option is a flag: true, false or, where it may be left out, neither."""
    kind = getattr(action, "_typehint", None)
    return bool in (kind, *get_args(kind))
