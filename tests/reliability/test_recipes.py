"""Hostile recipes end in one line and exit code 2, or train; none in a traceback, none hangs."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from segdistill import activity
from segdistill.cli import main
from tests.reliability import hostile
from tests.reliability.answers import REFUSED, WELL, answer


def outcome(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """`done`, `refused`, or what went wrong."""
    return answer(["train", str(path)], capsys)[0]


def _try(
    cases: list[tuple[str, Any, dict[str, Any]]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> Counter[str]:
    counts: Counter[str] = Counter()
    wrong = []
    for number, (key, value, recipe) in enumerate(cases):
        if key != "out":
            recipe["out"] = str(folder / f"run{number}")
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        found = outcome(path, capsys)
        counts[found if found in (WELL, REFUSED) else "wrong"] += 1
        if found not in (WELL, REFUSED):
            wrong.append(f"{key} = {value!r:.60}: {found}")
    assert wrong == []
    return counts


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without an `out` of their own land here."""
    monkeypatch.chdir(tmp_path)


def test_some_hostile_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = _try(hostile.recipes(tmp_path)[:25], tmp_path, capsys)
    assert counts[REFUSED] > 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_hostile_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = _try(hostile.recipes(tmp_path, seed=1)[:200], tmp_path, capsys)
    assert counts[REFUSED] + counts[WELL] == 200


@pytest.mark.parametrize("kind", hostile.TEXTS)
def test_files_that_are_no_recipe(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(hostile.TEXTS[kind])
    assert outcome(path, capsys) == REFUSED


def test_an_unexpected_exception_says_what_was_done_and_where_the_trace_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        with activity.doing("measuring the teacher", "image 3 of 7"):
            raise KeyError("a fault")

    monkeypatch.setattr("segdistill.run.training.train.train", broken)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(hostile.good(tmp_path)))
    with pytest.raises(SystemExit) as caught:
        main(["train", str(path)])
    line = capsys.readouterr().err.strip()
    assert caught.value.code == 1
    assert "unexpected KeyError while measuring the teacher (image 3 of 7): 'a fault'" in line
    assert "\n" not in line
    trace = Path(line.rpartition("the full trace is in ")[2])
    assert "in broken" in trace.read_text()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 99"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    ],
)
def test_out_of_memory_is_answered_in_our_words(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("segdistill.run.training.train.train", full)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(hostile.good(tmp_path)))
    with pytest.raises(SystemExit) as caught:
        main(["train", str(path)])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"segdistill: out of memory while running train ({path}). Lower train.batch or train.crop, or "
        "raise train.accumulate\n"
    )
