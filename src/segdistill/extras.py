"""Packages that only some commands need, installed with an extra."""

from importlib import import_module
from typing import Any


def need(package: str, extra: str) -> Any:
    """A package of one of our extras.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return import_module(package)
    except ImportError:
        raise ValueError(
            f'{package} is needed and not installed: pip install "segdistill[{extra}]"'
        ) from None
