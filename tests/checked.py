"""Annotations checked at run time: shapes by jaxtyping, types by beartype.

Each function is checked in its first calls of each test: a call costs ten times as much when checked, and
the thousandth in a test rarely brings a type that the first did not.
"""

import dataclasses
import importlib
import sys
from collections.abc import Callable
from functools import wraps
from types import CodeType
from typing import Any

import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

CALLS = 3
"""Calls of each function that are checked in each test."""

# As mypy reads annotations: an int is accepted where a float is expected.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_test = 0


def install() -> None:
    """Check whatever is imported from the package after this call."""
    with pytest.MonkeyPatch.context() as patch:
        # Fabric imports it, with SciPy and Transformers, only to compare its version.
        patch.setitem(sys.modules, "torchmetrics", None)
        # Below the hook, Python would compile them anew, since it looks for the code of another name.
        for library in (
            "lightning_fabric",
            "torchvision",
            "jsonargparse",
            "rich.logging",
            "matplotlib.figure",
            "jinja2",
        ):
            importlib.import_module(library)
    jaxtyping.install_import_hook("segdistill", f"{__name__}.{check_first.__name__}")
    jaxtyping.jaxtyped = lambda typechecker: typechecker


def begin_test() -> None:
    """Check the first calls of each function again."""
    global _test
    _test += 1


def check_first(checked: Any) -> Any:
    """Check a function, or the constructor of a dataclass, in its first calls of each test."""
    if not isinstance(checked, type):
        return _first_calls(checked)
    if dataclasses.is_dataclass(checked):
        checked.__init__ = _first_calls(checked.__init__)
    return checked


class _Checks:
    """The checks of a function, shared by all that one definition within another function makes."""

    def __init__(self) -> None:
        self.test = self.calls = 0
        self._prepared: list[Callable[..., Any]] = []

    def due(self) -> bool:
        """Count a call; say whether it is to be checked."""
        if self.test != _test:
            self.test, self.calls = _test, 0
        self.calls += 1
        return self.calls <= CALLS

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its checks: of arguments and result, and of arguments alone."""
        prepared = iter(self._prepared)
        made = []

        def prepare(signature: Callable[..., Any]) -> Callable[..., Any]:
            made.append(next(prepared, None) or _check(signature))
            return made[-1]

        checked = jaxtyped(function, typechecker=prepare)
        self._prepared = made
        return checked


_checks: dict[CodeType, _Checks] = {}


def _first_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    checks = _checks.setdefault(function.__code__, _Checks())
    # Made at the first call, since most of a test process never calls most of the package.
    checked: Callable[..., Any] | None = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        # No compiler can trace the checks, and a compared size would become a constant in the file.
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if (checks.calls >= CALLS and checks.test == _test) or not checks.due():
            return function(*args, **kwargs)
        checked = checked or checks.around(function)
        return checked(*args, **kwargs)

    return call
