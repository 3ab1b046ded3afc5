"""Progress at common terminal widths, and without a terminal."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from segdistill.config import Recipe
from segdistill.run.progress import TrainingProgress, duration, fitted
from segdistill.run.training.train import train
from tests.run import small

IDD = {
    "cross_entropy": 1.234,
    "cross_entropy_aux": 1.345,
    "pixelwise": 0.0123,
    "channelwise": 3.21,
    "inter_class": 0.456,
    "position": 0.789,
}


def _drawn(width: int, label: str = "idd-s0") -> list[str]:
    """The lines of the bar during a training, in a terminal of this width."""
    console = Console(force_terminal=True, width=width, color_system=None, file=StringIO())
    bar = TrainingProgress(label, 20_000, console=console)
    for done in (5_000, 10_000):
        bar.terms(done, IDD)
    assert bar._bar is not None
    plain = Console(width=width, file=StringIO(), record=True)
    plain.print(bar._bar.get_renderable())
    return plain.export_text().rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [60, 80, 110, 160, 240])
@pytest.mark.parametrize("label", ["idd-s0", "a-variant-with-a-very-long-name+another-s0"])
def test_bar_count_and_time_are_shown_at_any_width(width: int, label: str) -> None:
    lines = _drawn(width, label)
    assert len(lines) == 1
    assert cell_len(lines[0]) <= width
    found = re.match(rf"{label[:6]}\S* +[━╸╺ ]+ 10000/20000 +\S*:\S+", lines[0])
    assert found is not None, lines
    assert len(re.findall("[━╸╺ ]", found[0])) >= 12 + 3


def test_terms_fill_the_remaining_width() -> None:
    shown = {w: len(re.findall(r"[a-z_]+ [\d.]+", _drawn(w)[0][40:])) for w in (80, 110, 160)}
    assert shown == {80: 2, 110: 4, 160: 6}
    assert "+4" in _drawn(80)[0]
    assert _drawn(240)[0].endswith("inter_class 0.456  position 0.789")


@pytest.mark.parametrize("room", range(130))
def test_terms_never_exceed_their_width(room: int) -> None:
    text = fitted(IDD, room)
    assert len(text) <= room
    names = re.findall(r"[a-z]\w*", text)
    assert len(set(names)) == len(names)


def test_names_are_shortened_together_and_stay_apart() -> None:
    two = {"inter_class": 1.0, "intra_class": 2.0}
    assert fitted(two, 30) == "inter_class 1  intra_class 2"
    assert fitted(two, 26) == "inte_clas 1  intr_clas 2"
    assert fitted(two, 20) == "inte_clas 1  +1"
    assert fitted({"pixelwise": 0.5}, None) == "pixelwise 0.5"


class Clock:
    """A clock that advances only on request."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("notebook", [False, True])
def test_without_a_terminal_lines_are_logged_occasionally(
    notebook: bool, caplog: pytest.LogCaptureFixture
) -> None:
    written, clock = StringIO(), Clock()
    console = Console(file=written, force_jupyter=notebook, force_terminal=False)
    bar = TrainingProgress("idd", 20_000, console=console, clock=clock)
    with caplog.at_level(logging.INFO), bar:
        for done in range(1, 20_001):
            clock.now += 0.5
            bar.step(done)
            if done % 20 == 0:
                bar.terms(done, IDD)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("idd  step 20 of 20000, 2:46:30 left  cross_entropy 1.23  ")
    assert lines[0].endswith("position 0.789")
    assert lines[-1].startswith("idd  step 20000 of 20000  cross_entropy")
    assert 40 <= len(lines) <= 52
    assert written.getvalue() == ""


def test_a_resumed_training_measures_its_own_speed(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    bar = TrainingProgress("idd", 100, start=90, console=Console(file=StringIO()), clock=clock)
    clock.now = 20.0
    with caplog.at_level(logging.INFO):
        bar.terms(95, {"pixelwise": 1.0})
    assert caplog.messages == ["idd  step 95 of 100, 0:20 left  pixelwise 1"]


def test_progress_can_be_hidden(caplog: pytest.LogCaptureFixture) -> None:
    written = StringIO()
    bar = TrainingProgress("idd", 2, show=False, console=Console(file=written, force_terminal=True))
    with caplog.at_level(logging.INFO), bar:
        bar.terms(2, IDD)
        bar.say("a line")
    assert written.getvalue() + caplog.text == ""


def test_durations_are_formatted_like_a_clock() -> None:
    assert [duration(s) for s in (4, 64, 3599.6, 3661)] == ["0:04", "1:04", "1:00:00", "1:01:01"]


@contextmanager
def _fresh_logging() -> Iterator[None]:
    """Logging as it is when Python starts: pytest's handlers count as an application's own."""
    root, ours = logging.root, logging.getLogger("segdistill")
    before = root.handlers, root.level, ours.handlers, ours.propagate, ours.level
    root.handlers, ours.handlers, ours.propagate = [], [], True
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.NOTSET)
    yield
    root.handlers, ours.handlers, ours.propagate = before[0], before[2], before[3]
    root.setLevel(before[1])
    ours.setLevel(before[4])


def _printed(recipe: Recipe, progress: bool, capsys: pytest.CaptureFixture[str]) -> str:
    """What a training prints, and a second call, which finds the run finished."""
    logger = logging.getLogger("segdistill")
    for _ in range(2):
        train(recipe, progress=progress)
    assert (logger.propagate, logger.level, logger.handlers) == (True, 0, [])
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_python_calls_log_what_the_command_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = small.teacher(tmp_path / "teacher")
    recipe = small.recipe(**small.distilled(teacher.path), out=str(tmp_path / "run"))
    with _fresh_logging():
        printed = _printed(recipe, True, capsys)
    assert printed.count("What each term reads") == 1
    assert "mIoU on val" in printed
    assert "step 6 of 6" in printed
    assert printed.count("is already finished") == 1


def test_python_calls_respect_the_applications_logging(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _fresh_logging():
        recipe = small.recipe(out=str(tmp_path / "silent"))
        assert "What each term" not in _printed(recipe, False, capsys)
        # The application's own logging decides: warnings only, by default.
        logging.basicConfig(format="app: %(message)s")
        recipe = small.recipe(out=str(tmp_path / "quiet"))
        assert "What each term" not in _printed(recipe, True, capsys)
        logging.root.setLevel(logging.INFO)
        table = re.compile(r"^app: \n +What each term reads", re.MULTILINE)
        for progress in (True, False):
            recipe = small.recipe(out=str(tmp_path / f"loud-{progress}"))
            assert len(table.findall(_printed(recipe, progress, capsys))) == 1
