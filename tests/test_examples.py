"""The examples in docstrings run and print the output shown."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import segdistill

SOURCE = Path(segdistill.__file__).parent


def _docstrings(path: Path) -> list[str]:
    """Every docstring of a file, and the strings that document its constants."""
    return [
        node.value.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def _examples(path: Path) -> int:
    parser = doctest.DocTestParser()
    return sum(len(parser.get_examples(text)) for text in _docstrings(path))


WITH_EXAMPLES = {path: count for path in sorted(SOURCE.rglob("*.py")) if (count := _examples(path))}


def _run(module: object, name: str) -> tuple[doctest.TestResults, str]:
    """Run the examples of a module, each docstring with the module's own names."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module, name):
        runner.run(test, out=report.append)
    return runner.summarize(verbose=False), "".join(report)


@pytest.mark.parametrize(
    "path", WITH_EXAMPLES, ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_the_examples_of_a_module_hold(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    results, report = _run(importlib.import_module(name), name)
    assert results.failed == 0, report
    # Otherwise examples missed by the finder, or skipped by a directive, would go unnoticed.
    assert results.attempted == WITH_EXAMPLES[path]


def test_a_false_example_fails() -> None:
    def false() -> None:
        """
        >>> 1 + 1
        3
        """

    runner = doctest.DocTestRunner()
    (test,) = doctest.DocTestFinder().find(false, "false")
    report: list[str] = []
    assert runner.run(test, out=report.append).failed == 1
    assert "Expected:\n    3\nGot:\n    2" in "".join(report)
