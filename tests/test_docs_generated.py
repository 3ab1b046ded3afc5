"""Generated pages are complete, and pages written by hand name existing things."""

import importlib.util
import re
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

import segdistill
from segdistill import cli
from segdistill.config import option_texts
from segdistill.run.listing import NAMES

DOCS = Path(__file__).parent.parent / "docs"
SOURCE = Path(segdistill.__file__).parent
COMMANDS = sorted({**cli._WITH_RECIPE, **cli._COMMANDS})


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    return _module("generated")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_on_its_page(name: str, generated: ModuleType) -> None:
    page = (DOCS / "commands" / f"{name}.md").read_text("utf-8")
    assert f"```{{generated}} command {name}\n" in page
    text = generated.part(f"command {name}")
    parser = cli._parser(name)._subcommands_action._name_parser_map[name]
    keys = option_texts() if name in cli._WITH_RECIPE else {}
    for action in parser._actions:
        if action.dest.endswith(("help", "config")) or action.dest in keys:
            continue
        shown = action.option_strings[-1] if action.option_strings else action.dest.upper()
        assert f"| `{shown}` |" in text


def test_the_names_that_are_listed_are_those_of_the_code() -> None:
    names = _module("names")
    assert NAMES.read_text("utf-8") == names.text(), "run python docs/names.py"


def test_every_command_is_in_the_table_and_has_a_page(generated: ModuleType) -> None:
    table = generated.part("commands")
    pages = {page.stem for page in (DOCS / "commands").glob("*.md")} - {"index"}
    assert pages == set(COMMANDS)
    assert all(f"[`segdistill {name}`]({name}.md)" in table for name in COMMANDS)


def test_every_key_of_a_recipe_is_on_its_page_with_type_and_default(
    generated: ModuleType,
) -> None:
    text = generated.part("recipe-keys")
    keys = list(option_texts())
    for name, kind in generated.NAMED.items():
        keys += [f"{name}.NAME.{entry.name}" for entry in fields(kind)]
    assert {"terms", "variants", "evaluation"} <= set(generated.NAMED)
    assert [key for key in keys if f"| `{key}` |" not in text] == []
    assert "| `train.crop` | `[H, W]` | `[96, 128]` |" in text
    assert "| `train.precision` | `auto`, `32`, `bf16`, `fp16` | `32` |" in text


@pytest.mark.parametrize("part", ["api-public", "api-contract", "api-losses", "api-networks"])
def test_the_reference_names_objects_that_can_be_imported(part: str, generated: ModuleType) -> None:
    paths = re.findall(r"\.\. auto\w+:: (\S+)", generated.part(part))
    assert paths
    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
    if part == "api-public":
        public = [f"segdistill.{name}" for name in segdistill.__all__ if name[0] != "_"]
        assert paths == public


def test_every_method_shows_its_terms_in_both_presets(generated: ModuleType) -> None:
    text = generated.part("api-methods")
    assert "| `paper` | `pixelwise` | 10 | `logits` | form: skd | released code |" in text
    assert text.count("\n## `") + text.startswith("## `") == len(generated._entries("methods"))


def test_a_table_in_a_docstring_becomes_one_on_the_page(generated: ModuleType) -> None:
    lines = generated.to_rst(["Forms:", "", "| form | value |", "| --- | --- |", "| a | 1 |", ""])
    assert lines[2:7] == [
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - form",
        "     - value",
    ]
    formula = generated.to_rst(["The value:", "", "    L = 2", "", "with that."])
    assert formula == ["The value:", "", "::", "", "    L = 2", "", "with that."]


def test_the_architecture_page_names_every_room_and_file_as_it_is() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`([\w/]+(?:/|\.py))`", text))
    missing = [name for name in named if not (SOURCE / name).exists()]
    assert missing == []
    rooms = {
        f"{path.parent.relative_to(SOURCE).as_posix()}/" for path in SOURCE.glob("*/*/__init__.py")
    }
    assert rooms - named == set()


def test_every_page_starts_with_its_purpose() -> None:
    for page in DOCS.rglob("*.md"):
        lines = page.read_text("utf-8").splitlines()
        assert lines[0].startswith("# "), page
        assert lines[1] == "" and re.match(r"[A-Z`].*\w", lines[2]), page


# Messages ----------------------------------------------------------------------------------------

MESSAGES = _module("messages")


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "N", text)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "memory" else name
        for name in MESSAGES.MISTAKES
    ],
)
def test_messages_on_the_page_are_those_of_the_program(name: str) -> None:
    quoted = MESSAGES.quoted(MESSAGES.PAGE.read_text("utf-8"))
    now = MESSAGES.answer(name)
    if name in ("memory", "disk"):  # which allocation fails first, and a checkpoint's bytes, differ
        now, quoted[name] = _without_numbers(now), _without_numbers(quoted[name])
    assert now == quoted[name], "python docs/messages.py renews the page"
    assert name == "memory" or now.startswith(("segdistill: ", "problem: "))


def test_every_mistake_is_on_the_page() -> None:
    assert set(MESSAGES.quoted(MESSAGES.PAGE.read_text("utf-8"))) == set(MESSAGES.MISTAKES)
