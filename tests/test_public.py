"""The public names, as seen by a user's editor and type checker."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import segdistill

SCRIPT = """\
import segdistill

reveal_type(segdistill.distill)
reveal_type(segdistill.load_recipe("recipe.yaml"))
reveal_type(segdistill.load_recipe("recipe.yaml").train.lr)
reveal_type(segdistill.Recipe())
reveal_type(segdistill.wrap)
segdistill.distil
segdistill.train(segdistill.Recipe(), progess=False)
"""
# The libraries' types are skipped: they take a minute and do not concern our names.
CONFIG = """\
[mypy]
follow_imports = normal
ignore_missing_imports = true
[mypy-torch.*,torchvision.*,timm.*,numpy.*,PIL.*,lightning_fabric.*,matplotlib.*,jinja2.*,rich.*,jsonargparse.*]
follow_imports = skip
"""


def test_a_users_type_checker_knows_the_public_names(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    revealed = [m[1] for line in lines if (m := re.search(r'Revealed type is "(.*)"', line))]
    errors = "\n".join(line for line in lines if " error: " in line)
    assert len(revealed) == 5, done.stdout
    assert re.match(r"def \(teacher: .*, steps: (builtins\.)?int", revealed[0])
    assert revealed[0].endswith("-> segdistill.run.folder.RunFolder")
    assert revealed[1] == revealed[3] == "segdistill.config.Recipe"
    assert revealed[2].removeprefix("builtins.") == "float"
    assert revealed[4].startswith("def (module: ")
    assert 'Module has no attribute "distil"' in errors
    assert 'Unexpected keyword argument "progess"' in errors
    assert errors.count("\n") == 1, errors


def _imports_for_type_checkers() -> dict[str, str]:
    tree = ast.parse(Path(segdistill.__file__).read_text())
    guarded = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    found = {}
    for node in guarded.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            # Without `as`, a strict type checker treats the name as private.
            assert alias.name == alias.asname
            found[alias.name] = node.module or ""
    return found


def test_the_names_for_type_checkers_are_those_that_are_loaded() -> None:
    assert _imports_for_type_checkers() == segdistill._PUBLIC


def test_no_module_shadows_a_public_function() -> None:
    here = Path(segdistill.__file__).parent
    modules = {path.stem for path in here.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(segdistill._PUBLIC)
