"""What a training shows while it runs: a bar in a terminal, a line now and then elsewhere."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_log = logging.getLogger(__name__)


class TrainingProgress:
    """Shows steps, the time left and each term's value.

    Args:
        label: What is trained, shown before the bar.
        steps: Number of steps of the training.
        start: Step that it starts from.
        show: Whether to show anything at all (the first process does).
        console: Where to show it; standard error by default.
    """

    def __init__(
        self,
        label: str,
        steps: int,
        start: int = 0,
        show: bool = True,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._label, self._steps, self._show = label, steps, show
        self._next_line = start + max(steps // 5, 1)
        self._bar: Progress | None = None
        if show and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[terms]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(label, total=steps, completed=start, terms="")

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
        text = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=done, terms=text)
        elif self._show and (done >= self._next_line or done == self._steps):
            self._next_line = done + max(self._steps // 5, 1)
            _log.info("%s  step %d of %d  %s", self._label, done, self._steps, text)

    def say(self, message: str) -> None:
        """Say one line above the bar."""
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        elif self._show:
            _log.info("%s", message)


@contextmanager
def counting(label: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar for anything that reports (done, to do); nothing where there is no terminal.

    Example:
        >>> with counting("reading") as progress:
        ...     progress(1, 2)
    """
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
