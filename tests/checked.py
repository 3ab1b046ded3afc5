"""Annotations checked at run time: shapes by jaxtyping, types by beartype."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import jaxtyping
import torch
from beartype import BeartypeConf, beartype

# As mypy reads annotations: an int is accepted where a float is expected.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def install() -> None:
    """Check whatever is imported from the package after this call."""
    jaxtyping.install_import_hook("segdistill", f"{__name__}.at_first_call")
    jaxtyping.config.__class__ = _Switch
    from segdistill.data.synthetic import dataset

    dataset.draw_street = _checked_at_first(dataset.draw_street)


def at_first_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function, beginning with the work for it when it is first called.

    Most of a test process never calls most of the package, and preparing checks is what is slow.
    """
    checked = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        checked = checked or _check(function)
        return checked(*args, **kwargs)

    return call


def _checked_at_first(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Check all calls that draw the first scene of a process; thousands of them draw each scene."""
    checked = False

    @wraps(draw)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        _unchecked.here, checked = checked, True
        try:
            return draw(*args, **kwargs)
        finally:
            _unchecked.here = False

    return call


# For each thread, since another one may run code that is to be checked.
_unchecked = threading.local()


class _Switch(type(jaxtyping.config)):
    """Checks off where a test asks for it, in known scenes, and while torch compiles or exports a network.

    No compiler can trace the checks, and a compared size would become a constant in the file.
    """

    @property
    def jaxtyping_disable(self) -> bool:
        known = getattr(_unchecked, "here", False)
        return vars(self)["jaxtyping_disable"] or known or torch.compiler.is_compiling()
