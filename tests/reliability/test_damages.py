"""Files of finished runs, damaged one at a time: the same figures as before, or one line that names the file."""

import logging
import shutil
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from segdistill.config import Recipe
from segdistill.run.compare import compare
from segdistill.run.networks import load_run_model
from segdistill.run.reporting.reading.runs import find_runs, summarise
from tests.reliability import damages
from tests.run import small

STUDENT = "compared/kd-s0"
FILES = (
    "config.yaml",
    "environment.json",
    "evaluation.json",
    "evaluations/further.json",
    "identity.json",
    "metrics.jsonl",
    "model.json",
    "model.safetensors",
    "teacher.json",
)


def _recipe(base: Path) -> Recipe:
    return small.recipe(
        **small.distilled(base / "teacher", method="kd"),
        train={"steps": 2, "log_every": 1},
        evaluation={"further": {"options": {"count": 3}}},
        out=str(base / "compared"),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two runs, and their teacher."""
    base = tmp_path_factory.mktemp("damages")
    small.teacher(base / "teacher")
    compare(_recipe(base), ["supervised", "kd"], seeds=1, progress=False)
    return base


@pytest.fixture
def base(made: Path) -> Iterator[Path]:
    """The runs, restored afterwards."""
    copy = made.with_name("kept")
    shutil.copytree(made, copy, symlinks=True)
    yield made
    shutil.rmtree(made)
    copy.rename(made)


def _figures(base: Path) -> list[Any]:
    """What tables and a verdict are made of, and that the weights are read.

    How a figure was measured is only recorded, so it is left out, and the teacher's figure with it, which
    stands beside the students' only if it was measured in the same way.
    """
    load_run_model(base / STUDENT)
    return [
        (
            *(one.label, one.role, one.seed, one.miou, one.iou, one.pixel_accuracy, one.steps),
            {name: (found["miou"], found["iou"]) for name, found in one.sets.items()},
        )
        for one in summarise(find_runs([base / "compared"]))
        if one.role != "teacher"
    ]


def _fault(read: Callable[[], Any], expected: Any) -> str:
    """What is wrong with how a damaged file was taken; "" if it was refused, or did no harm."""
    try:
        found = read()
    except (ValueError, OSError) as error:
        return "several lines" if "\n" in str(error) or not str(error) else ""
    except Exception as error:
        return f"raises {error!r:.150}"
    return "" if _rounded(found) == _rounded(expected) else f"other figures: {found!r:.300}"


def _rounded(value: Any) -> Any:
    """To a millionth of a point: a digit beyond that is nobody's figure."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _faults(base: Path, tries: Iterator[tuple[Path, damages.Damage]]) -> list[str]:
    expected = _figures(base)
    faults = []
    for path, damage in tries:
        content = path.read_bytes()
        damage.do()
        if fault := _fault(lambda: _figures(base), expected):
            faults.append(f"{path.relative_to(base)}: {damage.what}: {fault}")
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(content)
    return faults


def _tries(base: Path, every: int) -> Iterator[tuple[Path, damages.Damage]]:
    for place, file in enumerate(FILES):
        path = base / STUDENT / file
        ways = [damages.of_file(path)]
        if path.suffix == ".json":
            ways.append(damages.of_values(path))
        for way in ways:
            for one in islice(way, place % every, None, every):
                # Without its file, a set is one that was not measured.
                if (file, one.what) != ("evaluations/further.json", "gone"):
                    yield path, one


def test_figures_of_damaged_runs_are_the_same_or_refused(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    assert _faults(base, _tries(base, 40)) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_damage(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    files = (base / STUDENT / "evaluation.json", base / STUDENT / "evaluations/further.json")
    digits = chain.from_iterable(((path, one) for one in damages.of_digits(path)) for path in files)
    assert _faults(base, chain(_tries(base, 1), islice(digits, 0, None, 7))) == []
