"""Where a module's code lies, found without running any of it, and a digest of that code."""

import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

_SUFFIXES = (".py", ".pyc", *EXTENSION_SUFFIXES)
_INSTALLED = {"site-packages", "dist-packages"}


def code_files(module: str) -> list[Path] | None:
    """The files whose code runs when a module is imported; its own file comes first.

    These are the file of the module and those of the packages around it. A package that is not
    installed counts whole, since its modules import one another. Modules outside it that the module
    imports in its turn are not followed. Nothing is imported to find them.

    Args:
        module: Dotted name.

    Returns:
        None where there is no such module. A module without a file, such as one that is built into
        Python, has the empty list.
    """
    specs = _specs(module)
    if specs is None:
        return None
    origins = [Path(spec.origin) for spec in specs if spec.has_location and spec.origin]
    files = [_on_disk(origin) for origin in origins[::-1]]
    package = next((spec for spec in specs if spec.has_location), None)
    if package is not None and package.submodule_search_locations:
        for folder in map(Path, package.submodule_search_locations):
            if not _INSTALLED & set(folder.parts):
                files += _code_below(folder)
    return list(dict.fromkeys(files))


def digest(files: list[Path]) -> str:
    """SHA-256 of the content of files and of their names relative to one another."""
    total = hashlib.sha256()
    root = files[0].parent if files else Path()
    for name, file in sorted((os.path.relpath(file, root), file) for file in files):
        total.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _specs(module: str) -> list[ModuleSpec] | None:
    """The specification of each part of a dotted name, from the outermost package on."""
    first, *others = module.split(".")
    try:
        spec = find_spec(first)
    except (ImportError, ValueError):  # a module that was made by hand has none
        return None
    specs: list[ModuleSpec] = []
    name = first
    while spec is not None:
        specs.append(spec)
        if not others:
            return specs
        name = f"{name}.{others[0]}"
        # `find_spec` of a dotted name would import the packages around it, and so would asking a
        # namespace package for its path.
        places = spec.submodule_search_locations
        spec = PathFinder.find_spec(name, getattr(places, "_path", places) or [])
        spec = spec or _loaded(name)
        del others[0]
    return None


def _loaded(name: str) -> ModuleSpec | None:
    """Of a module that is found by no path but is there already, such as `os.path`."""
    return getattr(sys.modules.get(name), "__spec__", None)


def _on_disk(origin: Path) -> Path:
    """The file itself, or the archive that it is part of."""
    return next((path for path in (origin, *origin.parents) if path.is_file()), origin)


def _code_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if "__pycache__" not in path.parts and path.name.endswith(_SUFFIXES) and path.is_file():
            yield path
