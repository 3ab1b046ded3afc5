"""How a command ends: well, with one line and exit code 2, or wrongly."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import pytest

from segdistill.cli import main

LIMIT = 20
"""Seconds after which a command counts as hanging."""
WELL, REFUSED = "done", "refused"


class Hangs(BaseException):
    pass


@contextmanager
def limited() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str, list[str]]:
    """`done`, `refused` or what went wrong; the line of a refusal; and the problems printed before it."""
    capsys.readouterr()
    try:
        with limited():
            main(list(argv))
    except SystemExit as error:
        printed = capsys.readouterr()
        said = [line for line in printed.err.splitlines() if line.startswith("segdistill: ")]
        problems = [line for line in printed.out.splitlines() if line.startswith("problem: ")]
        if error.code == 2 and len(said) == 1 and "Traceback" not in printed.err:
            line = said[0].removeprefix("segdistill: ")
            return REFUSED, line, [problem.removeprefix("problem: ") for problem in problems]
        return f"code {error.code}, lines {said}", "", []
    except Hangs:
        return "hangs", "", []
    except BaseException as error:
        return f"raises {error!r}", "", []
    return WELL, "", []
