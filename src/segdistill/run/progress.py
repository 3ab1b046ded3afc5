"""Progress of a training: a bar in a terminal, occasional lines elsewhere."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from segdistill.escaping import terminal_line

_log = logging.getLogger(__name__)


_BAR = 24
_LINES = 50


class TrainingProgress:
    """Shows the steps, the time left and the value of each term.

    In a terminal it shows a bar. In a file, a pipe or a notebook it logs lines: at the first row, at the
    last, and in between at most every ten seconds and fifty times in total.

    Args:
        label: Text before the bar.
        steps: Number of steps of the training.
        start: Step that the training starts from.
        show: Whether to show anything; True in the first process.
        console: Console to write to; standard error by default.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        label: str,
        steps: int,
        start: int = 0,
        show: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(stderr=True, emoji=False)
        label = terminal_line(label)
        self._label, self._steps, self._show, self._clock = label, steps, show, clock
        self._start, self._began, self._last_line = start, clock(), -math.inf
        self._bar: Progress | None = None
        # Not in a notebook, where a bar needs widgets or prints one line per step.
        if show and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=_BAR if self._console.width >= 100 else _BAR // 2),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[terms]}", markup=False, table_column=Column(no_wrap=True)),
                console=self._console,
            )
            self._label = shortened(label, self._console.width // 4)
            self._task = self._bar.add_task(self._label, total=steps, completed=start, terms="")

    def __enter__(self) -> "TrainingProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, done: int) -> None:
        """Count a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def terms(self, done: int, values: Mapping[str, float]) -> None:
        """Show the terms' values."""
        if self._bar is not None:
            text = terminal_line(fitted(values, self._room()))
            self._bar.update(self._task, completed=done, terms=text)
        elif self._show and self._line_is_due(done):
            self._last_line = self._clock()
            text = fitted(values, None)
            left = "" if done == self._steps else f", {duration(self._left(done))} left"
            _log.info("%s  step %d of %d%s  %s", self._label, done, self._steps, left, text)

    def _room(self) -> int:
        """Columns left beside label, bar, count and time."""
        count = 2 * len(str(self._steps)) + 1
        bar = _BAR if self._console.width >= 100 else _BAR // 2
        # Each of the four is followed by a space; the time may reach 10:00:00.
        return self._console.width - (cell_len(self._label) + bar + count + len("10:00:00") + 4)

    def _left(self, done: int) -> float:
        taken = (self._clock() - self._began) / max(done - self._start, 1)
        return taken * (self._steps - done)

    def _line_is_due(self, done: int) -> bool:
        passed = self._clock() - self._last_line
        whole = self._clock() - self._began + self._left(done)
        return done == self._steps or passed >= max(10.0, whole / _LINES)

    def say(self, message: str) -> None:
        """Show one line above the bar."""
        if self._bar is not None:
            self._bar.console.print(terminal_line(message), markup=False, highlight=False)
        elif self._show:
            _log.info("%s", message)


def fitted(values: Mapping[str, float], room: int | None) -> str:
    """Format terms and values in at most `room` columns: shorten names first, then drop terms.

    Args:
        values: Value of each term.
        room: Number of columns; None: unlimited.

    Example:
        >>> fitted({"cross_entropy": 1.25, "pixelwise": 0.5}, 40)
        'cross_entropy 1.25  pixelwise 0.5'
        >>> fitted({"cross_entropy": 1.25, "pixelwise": 0.5}, 26)
        'cros_entr 1.25  pixe 0.5'
        >>> fitted({"cross_entropy": 1.25, "pixelwise": 0.5}, 20)
        'cr_en 1.25  pi 0.5'
    """
    texts: list[str] = []
    for letters in (None, 6, 5, 4, 3, 2, 1):
        names = ["_".join(part[:letters] for part in name.split("_")) for name in values]
        if len(set(names)) < len(names):
            continue
        texts = [f"{n} {v:.3g}" for n, v in zip(names, values.values(), strict=True)]
        if room is None or len("  ".join(texts)) <= room:
            return "  ".join(texts)
    assert room is not None
    while texts:
        hidden = len(values) - len(texts)
        text = "  ".join([*texts, f"+{hidden}"] if hidden else texts)
        if len(text) <= room:
            return text
        texts.pop()
    return ""


def shortened(text: str, width: int) -> str:
    """Truncate text to `width` columns with an ellipsis."""
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}\N{HORIZONTAL ELLIPSIS}"


def duration(seconds: float) -> str:
    """Format a duration as `4:05` or `1:04:05`.

    Example:
        >>> duration(245.0)
        '4:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def counting(label: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for callbacks of (done, total); shows nothing outside a terminal.

    Example:
        >>> with counting("reading") as progress:
        ...     progress(1, 2)
    """
    console = console or Console(stderr=True, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(terminal_line(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
