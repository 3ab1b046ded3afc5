"""The code of the tests' own networks, listed and digested once in a process: it is in some 200 files."""

from functools import lru_cache
from pathlib import Path

import pytest

from segdistill import module_files, trust

HERE = Path(__file__).parent


@lru_cache
def _listed(module: str) -> list[Path] | None:
    return module_files.code_files(module)


@lru_cache
def _digested(files: tuple[Path, ...]) -> str:
    return module_files.digest(list(files))


def remember(patch: pytest.MonkeyPatch) -> None:
    """Give what was found before for modules of the tests, which no test changes."""

    def code_files(module: str) -> list[Path] | None:
        if module.startswith("tests."):
            files = _listed(module)
            return files and list(files)
        return module_files.code_files(module)

    def digest(files: list[Path]) -> str:
        own = all(HERE in file.parents for file in files)
        return _digested(tuple(files)) if own else module_files.digest(files)

    patch.setattr(trust, "code_files", code_files)
    patch.setattr(trust, "digest", digest)
