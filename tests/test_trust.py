"""What a run names is imported only with consent, and what a recipe names is looked at before it is called."""

import json
import logging
import os
import py_compile
import shutil
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from segdistill import cli
from segdistill.config import Recipe, code_names, map_code_names, recipe_text
from segdistill.data import build_dataset
from segdistill.distillation.catalogue import build_method
from segdistill.dotted import import_dotted, returns
from segdistill.models import build_model
from segdistill.module_files import code_files, digest
from segdistill.run.folder import RunFolder
from segdistill.run.networks import load_run_model
from segdistill.run.recipe import parse_recipe
from segdistill.run.shipping.server import predict_for_server
from segdistill.run.training.observing import build_observers
from segdistill.run.training.train import train
from segdistill.trust import FromRun, remember, require_trust, store, trusting
from tests.distillation.networks import Tiny
from tests.run import small

NETS = """
from pathlib import Path
from types import SimpleNamespace

from torch import nn

from segdistill.data import Synthetic
from tests.distillation.networks import Tiny

Path(__file__).with_name("imported").touch()


class Net(Tiny):
    pass


class Scenes(Synthetic):
    pass
"""
Lab = tuple[RunFolder, Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose network and data are code of a package, and the folder of that package."""
    home = tmp_path_factory.mktemp("lab")
    package = home / "lab_trust"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(NETS)
    data = {"name": "lab_trust.nets.Scenes", "options": {"size": [32, 48], "count": 6}}
    student = {"model": "lab_trust.nets.Net", "options": {"width": 8}}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(home)
        patch.setenv("XDG_CONFIG_HOME", str(home / "settings"))
        recipe = small.recipe(data=data, student=student, train={"steps": 1}, out=str(home / "run"))
        train(recipe, progress=False)
    return home / "run", home


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0].startswith("lab_")]:
        del sys.modules[name]


@pytest.fixture
def lab(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    """That run as somebody else gets it: nothing of its package is imported or trusted yet."""
    run, home = trained
    shutil.copytree(home / "lab_trust", tmp_path / "lab_trust")
    (tmp_path / "lab_trust" / "imported").unlink(missing_ok=True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.chdir(tmp_path)
    _forget()
    logger = logging.getLogger("segdistill")
    before = logger.handlers, logger.propagate, logger.level
    yield RunFolder(run), tmp_path
    logger.handlers, logger.propagate, _ = before
    logger.setLevel(before[2])
    _forget()


def _call(*argv: object) -> int:
    try:
        cli.main([str(word) for word in argv])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _imported(folder: Path) -> bool:
    return (folder / "lab_trust" / "imported").exists()


# Consent before import ----------------------------------------------------------------------------
def _recipe_on(run: RunFolder, folder: Path) -> Path:
    """A recipe of ours with that run as the teacher."""
    distilled = small.distilled(run.path, train={"steps": 1}, out=str(folder / "own"))
    return small.write(folder / "recipe.yaml", **distilled)


COMMANDS: dict[str, Callable[[RunFolder, Path], list[object]]] = {
    "evaluate": lambda run, _: ["evaluate", run.path, "--device", "cpu"],
    "export": lambda run, folder: ["export", run.path, "--out", folder / "export"],
    "predict": lambda run, folder: ["predict", run.path, folder, "--out", folder / "predictions"],
    "profile": lambda run, _: ["profile", run.path, "--size", "[32,48]", "--latency", "false"],
    "check": lambda run, folder: ["check", _recipe_on(run, folder)],
    "train": lambda run, folder: ["train", _recipe_on(run, folder)],
    "compare": lambda run, folder: ["compare", _recipe_on(run, folder), "--methods", "kd"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_nothing_that_a_stranger_s_run_names(
    name: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = lab
    assert _call(*COMMANDS[name](run, folder)) == 2
    printed = capsys.readouterr()
    error = printed.err.splitlines()[-1]
    if name == "check":  # which lists the problems, and ends with their number
        error = next(line for line in printed.out.splitlines() if line.startswith("problem: "))
    assert "lab_trust.nets" in error and str(folder / "lab_trust" / "nets.py") in error
    assert str(run.path) in error and "--trust" in error
    assert not _imported(folder)
    assert not store().exists() or "lab_trust" not in store().read_text()


def test_a_report_leaves_out_what_it_may_not_import(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = lab
    assert _call("report", run.path, "--out", folder / "report.html") == 0
    assert "repeat with --trust" in capsys.readouterr().err
    assert not _imported(folder)
    assert "no pictures" in (folder / "report.html").read_text().lower()


def test_a_module_is_trusted_from_then_on_until_it_changes(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = lab
    profile = COMMANDS["profile"](run, folder)
    assert _call(*profile, "--trust") == 0
    assert _imported(folder)
    assert list(json.loads(store().read_text())) == ["lab_trust.nets"]
    _forget()
    assert _call(*profile) == 0
    for changed in ("nets.py", "__init__.py", "beside.py"):
        _forget()
        with (folder / "lab_trust" / changed).open("a") as file:
            file.write("# changed\n")
        capsys.readouterr()
        assert _call(*profile) == 2
        assert "has changed since you trusted it" in capsys.readouterr().err
        assert _call(*profile, "--trust") == 0


@pytest.mark.parametrize("words", [["--trust"], ["--trust", "true"], ["--trust=yes"]])
def test_a_recipe_on_a_trusted_teacher_checks(words: list[str], lab: Lab) -> None:
    run, folder = lab
    assert _call("check", _recipe_on(run, folder), *words) == 0
    assert _imported(folder)


def test_python_asks_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run, folder = lab
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(ValueError, match=r"from Python trust=True"):
        load_run_model(run)
    with trusting(True):
        load_run_model(run)
    assert _imported(folder)


def test_the_run_of_one_s_own_recipe_needs_no_word(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, home = trained
    _forget()
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "settings"))
    load_run_model(run)
    assert _call("evaluate", run, "--device", "cpu") == 0
    _forget()


def test_bytecode_beside_foreign_source_is_not_run(lab: Lab) -> None:
    _, folder = lab
    evil, fine = folder / "lab_evil.py", "class Net: ...\n"
    evil.write_text("import os; os.mkdir('made')\n".ljust(80, "#"))
    cached = Path(py_compile.compile(str(evil), doraise=True) or "")
    times = evil.stat()
    evil.write_text(fine.ljust(80, "#"))
    os.utime(evil, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cached.exists()
    sys.path.insert(0, str(folder))
    with trusting(True):
        import_dotted(FromRun("lab_evil.Net", "runs/theirs"), "model")
    assert not (folder / "made").exists()


@pytest.mark.parametrize(
    "module",
    ["os", "subprocess", "tests.run.plain", "torchvision.io", "timmy", "segdistiller", "torch"],
)
def test_every_other_module_asks(module: str, lab: Lab) -> None:
    with pytest.raises(ValueError, match=r"--trust|no module named"):
        require_trust(module, FromRun(f"{module}.Thing", "runs/theirs"), "model")


@pytest.mark.parametrize(
    "module",
    ["segdistill.models", "torchvision.models.segmentation", "timm.models.resnet", "transformers"],
)
def test_the_networks_of_known_libraries_need_no_word(module: str) -> None:
    require_trust(module, FromRun(f"{module}.Thing", "runs/theirs"), "model")


def test_a_folder_in_the_working_folder_does_not_stand_in_for_a_library(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = lab
    (folder / "lab_optional.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setattr("segdistill.trust.KNOWN", ("lab_optional",))
    monkeypatch.setattr("segdistill.dotted._folders", [str(folder)])
    with pytest.raises(ValueError, match="no module named 'lab_optional'"):
        import_dotted(FromRun("lab_optional.Net", "runs/theirs"), "model")
    with pytest.raises(ValueError, match="raises SystemExit: imported"):
        import_dotted("lab_optional.Net", "model")


def test_a_name_keeps_its_origin() -> None:
    name = FromRun("lab.Net", "runs/theirs")
    again = deepcopy({"model": name})["model"]
    assert isinstance(again, FromRun) and again.run == "runs/theirs" and again == "lab.Net"


def test_every_name_of_code_in_a_run_is_marked(lab: Lab) -> None:
    values = small.values(
        data={"name": "a.B"},
        student={"model": "c.D"},
        teacher={"model": "e.F", "weights": "x.pth"},
        terms={"g.H": {"weight": 1}, "own": {"loss": "i.J", "weight": 1}},
        variants={"v": {"method": "kd", "terms": {"k.L": {"weight": 1}}}},
        observers=["m.N", {"path": "o.P"}],
    )
    names = code_names(parse_recipe(values))
    assert {name for name in names if "." in name} == {
        *("a.B", "c.D", "e.F", "g.H", "i.J", "k.L", "m.N", "o.P")
    }
    marked = map_code_names(parse_recipe(values), lambda name: FromRun(name, "r"))
    assert all(isinstance(name, FromRun) for name in code_names(marked))
    # Training from a stranger's run is no consent either.
    remember(code_names(marked))
    assert not store().exists()


def test_a_stranger_s_recipe_object_stays_a_stranger_s(lab: Lab) -> None:
    run, folder = lab
    sys.path.insert(0, str(folder))
    recipe: Recipe = run.recipe()
    recipe.out = str(folder / "again")
    with pytest.raises(ValueError, match="not trusted"):
        train(recipe, progress=False)
    assert not _imported(folder)


def test_a_damaged_store_trusts_nothing(lab: Lab) -> None:
    run, folder = lab
    for text in ("{", "[]", '{"lab_trust.nets": 3}', "\x00"):
        store().parent.mkdir(parents=True, exist_ok=True)
        store().write_text(text)
        assert _call("profile", run.path) == 2
    assert not _imported(folder)


# Where code lies ----------------------------------------------------------------------------------
def test_code_is_found_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab_a" / "b").mkdir(parents=True)
    for name in ("lab_a/b/__init__.py", "lab_a/b/c.py", "lab_a/b/d.py", "lab_e.py"):
        (tmp_path / name).write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    # `lab_a` has no __init__.py: its other packages are not looked at.
    (tmp_path / "lab_a" / "unrelated.py").touch()
    found = code_files("lab_a.b.c")
    assert found is not None and found[0] == tmp_path / "lab_a" / "b" / "c.py"
    assert {file.name for file in found} == {"c.py", "d.py", "__init__.py"}
    assert code_files("lab_e") == [tmp_path / "lab_e.py"]
    assert code_files("lab_f") is None and code_files("lab_a.b.x") is None
    assert code_files("sys") == []
    before = digest(found)
    (tmp_path / "lab_a" / "b" / "d.py").write_text("raise SystemExit  # changed\n")
    assert digest(found) != before
    assert not [name for name in sys.modules if name.startswith("lab_")]


# Look before calling ------------------------------------------------------------------------------
HOSTILE = [
    "os.system",
    "subprocess.Popen",
    "subprocess.run",
    "shutil.rmtree",
    "builtins.exec",
    "builtins.eval",
    "builtins.open",
    "pathlib.Path",
    "shelve.DbfilenameShelf",
    "numpy.memmap",
    "numpy.save",
    "torch.load",
    "torch.hub.load",
    "segdistill.run.folder.write_atomically",
    "code.InteractiveConsole",
    "functools.partial",
]
"""Callables that must never be called, whatever they are named for."""


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any of them that is called after all ends the test."""

    def never(*args: object, **options: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(shutil, "rmtree", never)
    monkeypatch.setattr(torch.hub, "load", never)


@pytest.mark.parametrize("path", HOSTILE)
def test_no_callable_but_a_fitting_class_is_called(path: str, untouched: None) -> None:
    with pytest.raises(ValueError, match=r"expected a subclass of torch\.utils\.data\.Dataset"):
        build_dataset(path)
    with pytest.raises(ValueError, match=r"expected a subclass of torch\.nn\.Module"):
        build_model(path, 3)
    with pytest.raises(ValueError, match=r"terms.own: .* expected a subclass of segdistill"):
        build_method("kd", 3, terms={"own": {"loss": path, "weight": 1}})
    with pytest.raises(ValueError, match=r"terms\..*expected a subclass of segdistill"):
        build_method("kd", 3, terms={path: {"weight": 1}})
    with pytest.raises(ValueError, match=r"expected .*row\(values\) and finished\(run\)"):
        build_observers(parse_recipe(small.values(observers=[path])))


@pytest.mark.parametrize("path", ["os.system", "subprocess.run", "shutil.rmtree", "builtins.exec"])
def test_factory_does_not_vouch_for_python_s_own_functions(path: str, untouched: None) -> None:
    with pytest.raises(ValueError, match="expected a subclass"):
        build_model(path, 3, factory=True)


def test_a_run_does_not_vouch_for_functions_of_known_libraries(tmp_path: Path) -> None:
    path = FromRun("segdistill.run.folder.write_atomically", "runs/theirs")
    options = {"path": str(tmp_path / "written"), "content": "text"}
    with pytest.raises(ValueError, match="expected a subclass"):
        build_model(path, 3, factory=True, **options)
    assert not (tmp_path / "written").exists()


def plain(num_classes: int) -> Any:
    return Tiny(8, num_classes)


def annotated(num_classes: int) -> Tiny:
    return Tiny(8, num_classes)


def quoted(num_classes: int) -> "nn.Module":
    return Tiny(8, num_classes)


def misleading() -> "__import__('os').mkdir('made')":  # type: ignore[valid-type]
    raise AssertionError


def test_a_function_is_called_where_its_annotation_or_the_recipe_says_so(tmp_path: Path) -> None:
    for name in ("annotated", "quoted"):
        assert build_model(f"{__name__}.{name}", 3).num_classes == 3
    with pytest.raises(ValueError, match="set factory: true beside model"):
        build_model(f"{__name__}.plain", 3)
    student = {"model": f"{__name__}.plain", "factory": True}
    run = train(
        small.recipe(student=student, train={"steps": 1}, out=str(tmp_path / "run")), progress=False
    )
    assert run.model_info()["factory"] is True
    assert load_run_model(run).num_classes == small.CLASSES


def test_an_annotation_is_never_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not returns(misleading, nn.Module)
    assert list(tmp_path.iterdir()) == []


def test_torchvision_s_builders_are_annotated() -> None:
    import torchvision.models.segmentation as networks

    assert returns(networks.deeplabv3_resnet50, nn.Module)
    assert returns(networks.lraspp_mobilenet_v3_large, nn.Module)


def test_weights_are_read_as_plain_tensors(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"state_dict": Evil()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="pickled modules are not opened"):
        build_model("pspnet:resnet18", 3, weights=str(tmp_path / "weights.pth"))
    assert not (tmp_path / "made").exists()


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"out: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    assert _call("train", recipe) == 2
    assert not (tmp_path / "made").exists()


def test_a_recipe_is_written_back_as_plain_text() -> None:
    recipe = map_code_names(small.recipe(), lambda name: FromRun(name, "runs/theirs"))
    assert yaml.safe_load(recipe_text(recipe))["student"]["model"] == small.MODEL


@pytest.mark.parametrize("name", ["../../outside", "/tmp/segdistill-outside", "a/../../outside"])
@pytest.mark.usefixtures("unchecked")
def test_masks_for_a_server_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    data: Any = SimpleNamespace(
        server_ids=[0, 1, 2],
        server_ending=".png",
        names=[name],
        read=lambda index: [torch.zeros(3, 8, 8)],
    )
    with pytest.raises(ValueError, match="leads out of"):
        predict_for_server(Tiny(4), data, tmp_path / "masks")
    assert [file.name for file in tmp_path.rglob("*.png")] == []
