"""Optional packages, which only some commands need and which are installed with an extra."""

from importlib import import_module
from importlib.util import find_spec
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
        raise _missing(package, extra) from None


def check_installed(package: str, extra: str) -> None:
    """Refuses where a package of one of our extras is not installed, without importing it.

    Args:
        package: Name of the package.
        extra: The extra of segdistill that installs it.

    Raises:
        ValueError: It is not installed.
    """
    if find_spec(package) is None:
        raise _missing(package, extra)


def _missing(package: str, extra: str) -> ValueError:
    return ValueError(f'{package} is needed and not installed: pip install "segdistill[{extra}]"')
