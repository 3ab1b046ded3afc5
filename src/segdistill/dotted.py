"""Classes and functions of the user's own, named by their dotted path."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from segdistill.names import unknown


def import_dotted(path: str, kind: str) -> Callable[..., Any]:
    """Imports a class or function by its dotted path.

    Args:
        path: As "package.module.Name".
        kind: What it is to be, in the singular ("loss", "data set"); messages start with it.

    Raises:
        ValueError: The path is not dotted, its module is missing or fails to import, or the module
            has no class or function of that name; one line says which.

    Example:
        >>> import_dotted("torch.nn.MSELoss", "loss").__name__
        'MSELoss'
    """
    module_name, _, name = path.rpartition(".")
    if not all(path.split(".")) or not module_name:
        raise ValueError(
            f"{kind} is {path!r}; expected a dotted path such as 'package.module.Name'"
        )
    module = _import(module_name, f"{kind} {path!r}")
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        problem = unknown(f"class or function in {module_name}", name, known)
        raise ValueError(f"{kind} {path!r}: {problem}")
    found = getattr(module, name)
    if not callable(found):
        raise ValueError(
            f"{kind} {path!r} is of type {type(found).__name__}; expected a class or a function"
        )
    return found  # type: ignore[no-any-return]


def _import(module_name: str, subject: str) -> ModuleType:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        # Without a name it was raised by hand, and says what its author wanted it to.
        problem = _missing(module_name, error.name) if error.name else _failure(module_name, error)
        raise ValueError(f"{subject}: {problem}") from error
    # A script without `if __name__ == "__main__"` may even exit.
    except (Exception, SystemExit) as error:
        raise ValueError(f"{subject}: {_failure(module_name, error)}") from error


def _missing(module_name: str, missing: str) -> str:
    if f"{module_name}.".startswith(f"{missing}."):
        return (
            f"no module named {missing!r}; check the spelling, and that its package is installed or "
            "its folder on PYTHONPATH"
        )
    return (
        f"{module_name} imports {missing!r}, which is missing; install it, or put its folder on "
        "PYTHONPATH"
    )


def _failure(module_name: str, error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return f"importing {module_name} raises {said}; fix that module first"
