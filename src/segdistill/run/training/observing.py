"""Observers of a training: their interface, how they are built and called."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

from segdistill.config import ObserverConfig, Recipe
from segdistill.dotted import import_class
from segdistill.names import made, unknown
from segdistill.run.folder import RunFolder


class Observer(Protocol):
    """The interface of an observer.

    A third method, `started(run, rows)`, is optional. It is called before the first step with the run's
    folder and the rows that it already holds (empty unless the run is resumed), from which a stateful
    observer restores its state.
    """

    def row(self, values: Mapping[str, Any]) -> str | None:
        """Called after each row of `metrics.jsonl`; return a reason to stop, or None."""

    def finished(self, run: RunFolder) -> None:
        """Called once the run is complete."""


class ObserverFailed(ValueError):
    """An observer raised an error or returned an invalid value."""


@dataclass
class Answer:
    """A request to stop."""

    by: str
    """dotted path of the observer's class"""
    reason: str


class Observers:
    """Passes each row to every observer, in order.

    Args:
        observers: The observers; empty except in the first process.

    Raises:
        ValueError: One of them is not an observer.
    """

    def __init__(self, observers: Sequence[Any] = ()) -> None:
        for observer in observers:
            check_observer(observer)
        self.observers = list(observers)

    def started(self, run: RunFolder) -> None:
        """Pass the run and the rows that it already holds to the observers."""
        rows = run.metrics() if self.observers else []
        for observer in self.observers:
            if hasattr(observer, "started"):
                _call(observer, "started()", _LATER, observer.started, run, rows)

    def row(self, values: Mapping[str, Any]) -> Answer | None:
        """Pass a row to every observer; return the first request to stop, or None."""
        answers = [self._ask(observer, values) for observer in self.observers]
        return next((answer for answer in answers if answer is not None), None)

    def _ask(self, observer: Any, values: Mapping[str, Any]) -> Answer | None:
        where = f"row() at step {values['step']}"
        # A copy, as the loop and other observers read the row afterwards.
        answer = _call(observer, where, _LATER, observer.row, deepcopy(values))
        if answer is None:
            return None
        if not isinstance(answer, str) or not answer:
            raise ObserverFailed(
                f"the result of observer {name_of(observer)} is {answer!r:.60}; expected None, or a "
                f"non-empty string with the reason to stop. {_LATER}"
            )
        return Answer(name_of(observer), answer)

    def finished(self, run: RunFolder) -> None:
        """Tell the observers that the run is complete."""
        for observer in self.observers:
            _call(observer, "finished()", "The run itself is complete", observer.finished, run)


_LATER = "The training is saved; fix or remove the observer, then repeat the command to resume"


def _call(observer: Any, where: str, remedy: str, method: Callable[..., Any], *values: Any) -> Any:
    try:
        return method(*values)
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise ObserverFailed(
            f"observer {name_of(observer)} failed in {where} ({cause}). {remedy}"
        ) from error


def name_of(observer: Any) -> str:
    """Dotted path of an observer's class."""
    return f"{type(observer).__module__}.{type(observer).__qualname__}"


def check_observer(observer: Any) -> None:
    """Refuse an object without the methods of an observer.

    Raises:
        ValueError: The object is a class, or has no `row` or `finished`.
    """
    if isinstance(observer, type):
        name = observer.__qualname__
        raise ValueError(f"observers: {name} is a class; expected an object, such as {name}()")
    _check_methods(type(observer), name_of(observer))


def build_observers(recipe: Recipe) -> list[Any]:
    """Build the observers of a recipe. Every process checks them; only the first builds them.

    Raises:
        ValueError: A path does not name a class, or the class is not an observer or has other options.
    """
    made = [_made(entry) for entry in recipe.chosen_observers()]
    return [make() for make in made] if os.environ.get("RANK", "0") == "0" else []


def _made(entry: ObserverConfig) -> Callable[[], Any]:
    kind = import_class(entry.path, "observer", "a class with row(values) and finished(run)")
    _check_methods(kind, entry.path)
    known = inspect.signature(kind).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        for option in entry.options:
            if option not in known:
                raise ValueError(f"observers: {entry.path}: {unknown('option', option, known)}")

    def make() -> Any:
        return made(f"observers: {entry.path}", kind, **entry.options)

    return make


def _check_methods(kind: type, name: str) -> None:
    for method, values in (("row", "values"), ("finished", "run")):
        if not callable(getattr(kind, method, None)):
            raise ValueError(
                f"observers: {name} has no method {method}({values}); expected row(values) and "
                "finished(run)"
            )
