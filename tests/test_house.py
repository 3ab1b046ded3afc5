"""The house: imports point down, and the light things stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import segdistill
from segdistill.labels import IGNORED

SOURCE = Path(segdistill.__file__).parent
# What each room may import, besides itself and the ground (names, labels, dotted).
MAY_IMPORT = {
    "names": set(),
    "labels": set(),
    "config": set(),
    "dotted": set(),
    "losses": set(),
    "models": {"extras"},
    "data": set(),
    "distillation": {"losses"},
    "run": {"config", "losses", "models", "data", "distillation", "extras"},
    "arguments": set(),
    "extras": set(),
    "cli": {"run", "arguments"},
    "observers": {"run", "extras"},
    "__main__": {"cli"},
    # What type checkers are told to look at; nothing of it is imported when the package is.
    "__init__": {"config", "data", "distillation", "models", "run"},
}


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imported_rooms(path: Path) -> set[str]:
    rooms = set()
    package = ["segdistill", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [".".join([*base, node.module] if node.module else base)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "segdistill" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_no_import_climbs(path: Path) -> None:
    room = _room(path)
    ground = {"labels"} if room == "losses" else {"labels", "names", "dotted"}
    allowed = MAY_IMPORT[room] | {room} | ground
    assert _imported_rooms(path) <= allowed


@pytest.mark.parametrize("argument", ["--help", "--version", "train --help"])
def test_help_needs_no_torch(argument: str) -> None:
    code = (
        "import sys\nfrom segdistill.cli import main\n"
        f"try: main({argument.split()!r})\nexcept SystemExit as stop: assert not stop.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_package_alone_needs_no_torch_and_offers_its_names() -> None:
    code = "import sys, segdistill\ndir(segdistill)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_can_be_had() -> None:
    for name in segdistill.__all__:
        assert getattr(segdistill, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        segdistill.distil  # noqa: B018


def test_the_ignored_id_is_defined_once() -> None:
    defining = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Constant)
        and node.value.value == IGNORED
    ]
    assert defining == ["labels.py"]
