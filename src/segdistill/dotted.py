"""Classes and functions of the user's own, named by their dotted path."""

import builtins
import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any

from segdistill.names import unknown
from segdistill.trust import FromRun, is_known, own_bytecode, require_trust

_folders: list[str] = []


def search_in(folder: str) -> None:
    """Look for modules that a recipe names in this folder, too, after all others.

    The folder joins `sys.path` with the first such module, not before: what lies in it must not stand
    in for an optional package that is not installed.
    """
    _folders[:] = [folder]


def import_dotted(path: str, kind: str) -> Callable[..., Any]:
    """Imports a class or function by its dotted path.

    Args:
        path: As "package.module.Name".
        kind: What it is to be, in the singular ("loss", "data set"); messages start with it.

    Raises:
        ValueError: The path is not dotted, its module is missing or fails to import, or the module
            has no class or function of that name; or a run names a module that the user does not trust.
            One line says which.

    Example:
        >>> import_dotted("torch.nn.MSELoss", "loss").__name__
        'MSELoss'
    """
    module_name, _, name = path.rpartition(".")
    if not all(path.split(".")) or not module_name:
        raise ValueError(
            f"{kind} is {str(path)!r}; expected a dotted path such as 'package.module.Name'"
        )
    module = _trusted_module(module_name, path, kind)
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


def import_class(
    path: str, kind: str, expected: str, fits: Callable[[type], bool] = lambda found: True
) -> type:
    """Imports a class by its dotted path, and looks at it before anybody calls it.

    Args:
        path: As "package.module.Name".
        kind: What it is to be, in the singular.
        expected: What is asked for, for the message ("a subclass of torch.nn.Module").
        fits: Whether a class is one of those that are asked for; by default any is.

    Raises:
        ValueError: As for `import_dotted`, or it is no class or not such a one.
    """
    found = import_dotted(path, kind)
    if not inspect.isclass(found) or not fits(found):
        raise ValueError(f"{kind} {path!r} is {described(found)}; expected {expected}")
    return found


def returns(function: Callable[..., Any], base: type) -> bool:
    """Whether a function is annotated to return a subclass of `base`.

    An annotation in quotes is looked up name by name in the function's module, never evaluated.

    Example:
        >>> def count() -> "int": ...
        >>> returns(count, int), returns(count, str), returns(len, int)
        (True, False, False)
    """
    plain = inspect.unwrap(function)
    annotation = getattr(plain, "__annotations__", {}).get("return")
    if isinstance(annotation, str):
        first, *others = annotation.strip().strip("'\"").split(".")
        scope = {**vars(builtins), **getattr(plain, "__globals__", {})}
        annotation = scope.get(first)
        for name in others:
            annotation = getattr(annotation, name, None)
    return inspect.isclass(annotation) and issubclass(annotation, base)


def may_be_factory(path: str, function: Callable[..., Any]) -> bool:
    """Whether `factory: true` may vouch for an unannotated function.

    Python's own library makes no networks. Nor does a run vouch for functions that it may name without
    being trusted: among those of the known libraries are some that write files.
    """
    module = inspect.getmodule(function)
    name = getattr(function, "__module__", None) or (module.__name__ if module else "builtins")
    named = path.rpartition(".")[0]
    standard = {name.partition(".")[0], named.partition(".")[0]} & {*sys.stdlib_module_names}
    return not standard and not (isinstance(path, FromRun) and is_known(named))


def described(found: Any) -> str:
    """What somebody's dotted path leads to, in two words."""
    if inspect.isclass(found):
        return f"the class {found.__module__}.{found.__qualname__}"
    return "a function" if inspect.isroutine(found) else f"an object of {type(found).__name__}"


def _trusted_module(module_name: str, path: str, kind: str) -> ModuleType:
    added = [folder for folder in _folders if folder not in sys.path]
    foreign = isinstance(path, FromRun)
    if not (foreign and is_known(module_name)):
        sys.path += added
    try:
        require_trust(module_name, path, kind)
    except ValueError:
        sys.path[:] = [folder for folder in sys.path if folder not in added]
        raise
    with own_bytecode() if foreign else nullcontext():
        return _import(module_name, f"{kind} {str(path)!r}")


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
