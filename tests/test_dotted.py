"""The importer of dotted paths, and its message for each failure."""

import sys
from pathlib import Path

import pytest

from segdistill.data import build_dataset
from segdistill.distillation.method import build_loss
from segdistill.dotted import import_dotted
from segdistill.models import build_model

MODULES = {
    "fine": "class Mine: ...\ndef make(): ...\nRATE = 3\n",
    "lacking": "import a_package_of_theirs.nowhere\n",
    "failing": "raise RuntimeError('no such device\\nsecond line')\n",
    "misspelt": "def make(:\n",
    "exiting": "import sys\nsys.exit(2)\n",
    "by_hand": "raise ModuleNotFoundError('install the thing')\n",
    "half": "from collections import NoSuchThing\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package `lab_losses` on the path, with the modules above."""
    folder = tmp_path / "lab_losses"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "lab_losses"]:
        monkeypatch.delitem(sys.modules, name)
    return "lab_losses"


def test_classes_and_functions_are_found(package: str) -> None:
    assert import_dotted(f"{package}.fine.Mine", "loss").__name__ == "Mine"
    assert import_dotted(f"{package}.fine.make", "loss").__name__ == "make"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Mine", "loss is 'Mine'; expected a dotted path such as 'package.module.Name'"),
        (".Mine", "loss is '.Mine'; expected a dotted path"),
        ("lab_losses..Mine", "expected a dotted path"),
        (
            "lab_loses.fine.Mine",
            "loss 'lab_loses.fine.Mine': no module named 'lab_loses'; check the spelling, and that its "
            "package is installed or its folder on PYTHONPATH",
        ),
        ("lab_losses.fin.Mine", "no module named 'lab_losses.fin'; check the spelling"),
        (
            "lab_losses.lacking.Mine",
            "lab_losses.lacking imports 'a_package_of_theirs', which is missing; install it, or put its "
            "folder on PYTHONPATH",
        ),
        (
            "lab_losses.failing.Mine",
            "loss 'lab_losses.failing.Mine': importing lab_losses.failing raises RuntimeError: no such "
            "device; fix that module first",
        ),
        ("lab_losses.misspelt.Mine", "raises SyntaxError: "),
        ("lab_losses.exiting.Mine", "importing lab_losses.exiting raises SystemExit: 2"),
        ("lab_losses.by_hand.Mine", "raises ModuleNotFoundError: install the thing"),
        ("lab_losses.half.Mine", "raises ImportError: cannot import name 'NoSuchThing'"),
        (
            "lab_losses.fine.Mien",
            "loss 'lab_losses.fine.Mien': no class or function in lab_losses.fine named 'Mien'; did you "
            "mean 'Mine'? (known: Mine, make)",
        ),
        (
            "lab_losses.fine.RATE",
            "loss 'lab_losses.fine.RATE' is of type int; expected a class or a function",
        ),
    ],
)
def test_each_failure_says_what_to_do_in_one_line(package: str, path: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        import_dotted(path, "loss")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_losses_networks_and_data_sets_are_imported_in_the_same_way(package: str) -> None:
    path = f"{package}.lacking.Mine"
    text = f"'{path}': {package}.lacking imports 'a_package_of_theirs', which is missing"
    with pytest.raises(ValueError, match=f"loss {text}"):
        build_loss(path)
    with pytest.raises(ValueError, match=f"model {text}"):
        build_model(path, 3)
    with pytest.raises(ValueError, match=f"data set {text}"):
        build_dataset(path)
