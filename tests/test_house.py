"""The house: imports point down, between packages and between the rooms of one; light things stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import segdistill
from segdistill.labels import IGNORED

SOURCE = Path(segdistill.__file__).parent
# What each package or file of the ground floor may import, besides itself and names, labels and dotted.
MAY_IMPORT = {
    "names": set(),
    "labels": set(),
    "config": set(),
    "yaml_files": set(),
    "escaping": set(),
    "dotted": {"trust"},
    "trust": {"module_files"},
    "module_files": set(),
    "geometry": set(),
    "losses": {"geometry"},
    "models": {"extras", "geometry"},
    "data": {"extras"},
    "distillation": {"losses", "geometry"},
    "run": {"config", "yaml_files", "losses", "models", "data", "distillation", "extras"}
    | {"activity", "trust", "escaping", "geometry"},
    "arguments": set(),
    "extras": set(),
    "activity": set(),
    "cli": {"run", "arguments", "activity", "trust", "escaping"},
    "observers": {"run", "extras"},
    "__main__": {"cli"},
    # What type checkers are told to look at; nothing of it is imported when the package is.
    "__init__": {"config", "data", "distillation", "models", "run"},
}

# The floors inside a package, from the ground up: its rooms (folders) and the files at its root. A file
# imports from lower floors, its own room, and as a root file from root files of its floor.
FLOORS: dict[str, list[set[str]]] = {
    "models": [
        {"input", "contract", "untrained"},
        {"files"},
        {"layers"},
        {"networks"},
        {"foreign"},
        {"build"},
        {"__init__"},
    ],
    "data": [
        {"reading"},
        {"orientation"},
        {"annotations"},
        {"randomness", "label_map", "files", "pair", "dataset", "listed", "caching"}
        | {"channels", "samples", "transforms", "loader", "labelled", "order", "strong"},
        {"layouts"},
        {"folder"},
        {"published", "synthetic"},
        {"__init__"},
    ],
    "run": [
        {"contents"},
        {"folder", "recipe", "environment", "console", "progress", "opening", "lock", "__init__"},
        {"identity", "comparing"},
        {"networks"},
        {"evaluation"},
        {"auditing", "reporting", "shipping"},
        {"training"},
        {"paper", "rows"},
        {"compare", "demo", "listing", "commands"},
        {"tuning", "suggesting"},
    ],
}
# Known imports that climb, until what they import is moved. Do not add any.
STILL_CLIMBING: set[tuple[str, str]] = set()
MOST_FILES = 12


def _dotted(path: Path) -> str:
    parts = ("segdistill", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


FILES = {_dotted(path): path for path in sorted(SOURCE.rglob("*.py"))}


def _imported(node: ast.AST, package: list[str]) -> Iterator[str]:
    """Dotted names that one import asks for; those of `from a import b` as `a.b`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        start = ".".join([*base, node.module] if node.module else base)
        yield from (f"{start}.{alias.name}" for alias in node.names)


def _asked(text: str, package: list[str]) -> set[str]:
    """What a file of `package` imports, within functions and by `import_module` of a literal, too."""
    asked: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        asked |= set(_imported(node, package))
        # Also from a table of such names, so any literal of a file that imports by name counts.
        if isinstance(node, ast.Constant) and "import_module" in text:
            asked.add(str(node.value))
    # A class or function stands for the file that it is in.
    return {one if one in FILES else one.rpartition(".")[0] for one in asked} & FILES.keys()


@cache
def _imports(name: str) -> set[str]:
    path = FILES[name]
    package = ["segdistill", *path.relative_to(SOURCE).parts[:-1]]
    return _asked(path.read_text(), package) - {name}


def _place(name: str, package: str) -> str:
    """The room of a file, or for a file at the root of its package its own name."""
    return FILES[name].relative_to(SOURCE / package).parts[0].removesuffix(".py")


def _inside(package: str) -> list[str]:
    return [name for name, path in FILES.items() if (SOURCE / package) in path.parents]


def _climbs(importer: str, imported: str, package: str) -> bool:
    floors = {place: i for i, floor in enumerate(FLOORS[package]) for place in floor}
    here, there = _place(importer, package), _place(imported, package)
    if here == there:
        return False
    rooms = [place for place in (here, there) if (SOURCE / package / place).is_dir()]
    return floors[there] > floors[here] or (floors[there] == floors[here] and bool(rooms))


@pytest.mark.parametrize("name", FILES)
def test_no_import_climbs(name: str) -> None:
    room = FILES[name].relative_to(SOURCE).parts[0].removesuffix(".py")
    imported = {one.split(".")[1] for one in _imports(name) if one != "segdistill"}
    ground = {"labels"} if room == "losses" else {"labels", "names", "dotted"}
    # The public names of `segdistill` are looked up when asked for.
    allowed = set(MAY_IMPORT) if name == "segdistill" else MAY_IMPORT[room] | {room} | ground
    assert imported <= allowed


@pytest.mark.parametrize(
    ("text", "imported"),
    [
        ("import segdistill.models.input", "segdistill.models.input"),
        ("from segdistill.models.input import make_input", "segdistill.models.input"),
        ("from segdistill.models import layers", "segdistill.models.layers"),
        ("from segdistill.models import wrap", "segdistill.models"),
        ("from ..input import make_input", "segdistill.models.input"),
        ("from .. import input", "segdistill.models.input"),
        ("def f():\n    from segdistill.config import Recipe", "segdistill.config"),
        ('TABLE = {"x": "segdistill.config"}\nimport_module(TABLE["x"])', "segdistill.config"),
    ],
)
def test_all_forms_of_import_are_found(text: str, imported: str) -> None:
    assert _asked(text, ["segdistill", "models", "files"]) == {imported}


def test_a_room_climbs_to_a_higher_floor_and_to_its_neighbours() -> None:
    def climbs(importer: str, imported: str, package: str) -> bool:
        return _climbs(f"segdistill.{importer}", f"segdistill.{imported}", package)

    assert climbs("models.files.weights", "models.foreign.wrapped", "models")
    assert climbs("models.input", "models", "models")
    assert climbs("run.shipping.export", "run.reporting.report", "run")
    assert not climbs("run.reporting.report", "run.reporting.page", "run")
    assert not climbs("run.networks", "run.folder", "run")
    assert not climbs("run.compare", "run.training.train", "run")


@pytest.mark.parametrize("package", FLOORS)
def test_every_file_has_its_floor(package: str) -> None:
    known = set().union(*FLOORS[package])
    homeless = {place for name in _inside(package) if (place := _place(name, package)) not in known}
    assert not homeless, f"say on which floor of FLOORS[{package!r}] these stand: {homeless}"


def test_no_import_climbs_between_rooms() -> None:
    climbing = {
        (name, one)
        for package in FLOORS
        for name in _inside(package)
        for one in _imports(name) & set(_inside(package))
        if _climbs(name, one, package)
    }
    assert climbing - STILL_CLIMBING == set(), "these imports climb"
    assert STILL_CLIMBING - climbing == set(), (
        "these climb no longer: take them from STILL_CLIMBING"
    )


@pytest.mark.parametrize("package", FLOORS)
def test_no_files_import_one_another_in_a_circle(package: str) -> None:
    inside = set(_inside(package))
    try:
        TopologicalSorter({name: _imports(name) & inside for name in inside}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_no_room_of_run_is_crowded() -> None:
    rooms = [SOURCE / "run", *(path for path in (SOURCE / "run").iterdir() if path.is_dir())]
    for room in rooms:
        files = [path.name for path in room.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, f"{room.name} has {len(files)} files"


@pytest.mark.parametrize("argument", ["--help", "--version", "train --help"])
def test_help_does_not_import_torch(argument: str) -> None:
    code = (
        "import sys\nfrom segdistill.cli import main\n"
        f"try: main({argument.split()!r})\nexcept SystemExit as stop: assert not stop.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys, segdistill\ndir(segdistill)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_public_name_can_be_imported() -> None:
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
