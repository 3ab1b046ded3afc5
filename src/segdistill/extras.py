"""Optional packages, which only some commands need and which are installed with an extra."""

from importlib import import_module
from typing import Any


def require(package: str, extra: str) -> Any:
    """Imports a package of one of our extras.

    Args:
        package: Dotted name of the package or of a module in it.
        extra: The extra of segdistill that installs it.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return import_module(package)
    except ImportError:
        raise ValueError(
            f'{package} is needed and not installed: pip install "segdistill[{extra}]"'
        ) from None
