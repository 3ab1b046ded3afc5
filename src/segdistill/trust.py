"""Whose code is run: names that come from a run are imported only if the user trusts their module."""

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from segdistill.module_files import code_files, digest

_log = logging.getLogger(__name__)
_TRUSTING: ContextVar[bool] = ContextVar("trusting", default=False)

KNOWN = ("segdistill", "torchvision.models", "timm", "segmentation_models_pytorch", "transformers")
"""This package, and the networks of known libraries: a run may name what is in them."""


class FromRun(str):
    """A name that was read from a run and not written by the user.

    It keeps its origin wherever it is passed on, so that whoever imports by name can tell.

    Args:
        text: The name.
        run: Folder of the run.
    """

    run: str

    def __new__(cls, text: str, run: str) -> "FromRun":
        """A name with its origin."""
        made = super().__new__(cls, text)
        made.run = run
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.run

    def __reduce__(self) -> Any:
        return type(self), self.__getnewargs__()


def from_run(value: Any, run: str) -> Any:
    """Plain values read from a run, all texts in them marked as such."""
    if isinstance(value, str):
        return FromRun(value, run)
    if isinstance(value, dict):
        return {from_run(key, run): from_run(item, run) for key, item in value.items()}
    if isinstance(value, list):
        return [from_run(item, run) for item in value]
    return value


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """While this lasts, the modules that runs name are trusted, and remembered as trusted.

    Args:
        trust: False leaves everything as it is.
    """
    token = _TRUSTING.set(trust or _TRUSTING.get())
    try:
        yield
    finally:
        _TRUSTING.reset(token)


def is_known(module: str) -> bool:
    """Whether a module is this package's or holds networks of a known library.

    Example:
        >>> is_known("timm.models.resnet"), is_known("timmy"), is_known("torchvision.io")
        (True, False, False)
    """
    return any(f"{module}.".startswith(f"{known}.") for known in KNOWN)


def require_trust(module: str, path: str, kind: str) -> None:
    """Refuse a module that a run names and the user does not trust, before anything of it runs.

    Names that are not marked as a run's own are the user's, and pass.

    Args:
        module: The module that is about to be imported.
        path: The dotted path that names it.
        kind: What it is to be, for the message.

    Raises:
        ValueError: The module is neither known nor trusted, or has changed since it was.
    """
    if not isinstance(path, FromRun) or is_known(module) or module == "__main__":
        return
    files = code_files(module)
    if files is None:
        raise ValueError(
            f"{kind} {str(path)!r} of the run {path.run}: no module named {module!r}; check that its "
            "package is installed or its folder on PYTHONPATH"
        )
    trusted, now = _trusted().get(module, {}), digest(files)
    if now in trusted:
        return
    where = files[0] if files else "built into Python"
    if _TRUSTING.get():
        _remember(module, now, str(where))
        return
    state = (
        "code that has changed since you trusted it"
        if trusted
        else "code that you have not trusted"
    )
    raise ValueError(
        f"{kind} {str(path)!r} of the run {path.run} is {state} (module {module}, {where}); expected a "
        "trusted module. Read that file, then repeat with --trust (from Python trust=True)"
    )


def remember(paths: Iterable[str | None]) -> None:
    """Remember modules that the user's own recipe names as trusted, so that its runs can be read.

    Args:
        paths: Dotted paths of classes; names without a dot, and names from a run, are passed over.
    """
    for module, files in _own_modules(paths).items():
        now = digest(files)
        if now not in _trusted().get(module, {}):
            _remember(module, now, str(files[0]))


def code_digests(paths: Iterable[str | None]) -> dict[str, str]:
    """A digest of the code of each module of the user's own that these dotted paths name."""
    return {module: digest(files) for module, files in _own_modules(paths).items()}


def _own_modules(paths: Iterable[str | None]) -> dict[str, list[Path]]:
    """The modules that a user's own names lead to, and their files; not those of known libraries."""
    own = (path for path in paths if path is not None and not isinstance(path, FromRun))
    modules = sorted({path.rpartition(".")[0] for path in own})
    return {
        module: files
        for module in modules
        if not is_known(module)
        and all(part.isidentifier() for part in module.split("."))
        and (files := code_files(module))
    }


def store() -> Path:
    """The file that remembers trusted modules, of this user on this machine."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "segdistill" / "trusted.json"


def _trusted() -> dict[str, dict[str, str]]:
    """Module -> digest of its code -> the file that was trusted."""
    try:
        values = json.loads(store().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RuntimeError) as error:
        _log.warning("%s cannot be read (%s); no module is trusted", store(), error)
        return {}
    entries = values.items() if isinstance(values, dict) else ()
    return {module: known for module, known in entries if isinstance(known, dict)}


def _remember(module: str, code: str, where: str) -> None:
    values = _trusted()
    values.setdefault(module, {})[code] = where
    file = store()
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        _log.warning("%s cannot be written (%s): %s will be asked for again", file, error, module)


@contextmanager
def own_bytecode() -> Iterator[None]:
    """Import from source: compiled files that lie beside foreign source need not be made from it."""
    before = sys.pycache_prefix
    sys.pycache_prefix = str(store().with_name("bytecode"))
    try:
        yield
    finally:
        sys.pycache_prefix = before
