"""Tables and log lines for a terminal."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from segdistill.escaping import terminal_line, terminal_text


def set_up_logging(debug: bool = False) -> None:
    """Send the package's log to standard error; only the first process logs."""
    logger = logging.getLogger("segdistill")
    logger.handlers = [_handler()]
    logger.propagate = False
    first = os.environ.get("RANK", "0") == "0"
    logger.setLevel(logging.DEBUG if debug else logging.INFO if first else logging.ERROR)
    # Fabric logs devices and hints of its own, which do not concern users of this package.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def terminal(stderr: bool = False) -> Console:
    """A console that shows text as it is: brackets are no markup, colons no emoji."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(text: str) -> None:
    """Print lines as they are: a narrow terminal or a pipe breaks none of them."""
    terminal().print(terminal_text(text), soft_wrap=True)


class _Formatter(logging.Formatter):
    """Escapes what a message is filled with; only the message itself may have several lines."""

    def format(self, record: logging.LogRecord) -> str:
        safe = copy(record)
        if isinstance(record.args, tuple):
            safe.args = tuple(
                terminal_line(value) if isinstance(value, str | Path | BaseException) else value
                for value in record.args
            )
        return terminal_text(super().format(safe))


def _handler() -> logging.Handler:
    console = terminal(stderr=True)
    handler: logging.Handler
    # Not rich in a file or a pipe, where it would wrap paths and tables at 80 columns.
    if console.is_terminal:
        handler = RichHandler(
            console=console, show_time=False, show_level=False, show_path=False, markup=False
        )
    else:
        # Notebooks highlight standard error as if something had failed.
        handler = logging.StreamHandler(sys.stdout if console.is_jupyter else None)
    handler.setFormatter(_Formatter("%(message)s"))
    return handler


@contextmanager
def spoken(progress: bool) -> Iterator[None]:
    """Show the package's log while a function called from Python runs.

    If the application has set up logging, for this package or globally, nothing changes.

    Args:
        progress: False changes nothing, so the log usually stays silent.
    """
    logger, fabric = logging.getLogger("segdistill"), logging.getLogger("lightning_fabric")
    if not progress or logger.hasHandlers():
        yield
        return
    before = logger.handlers, logger.propagate, logger.level, fabric.level
    set_up_logging()
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
        fabric.setLevel(before[3])


@contextmanager
def quiet() -> Iterator[None]:
    """Limit the package's log to errors inside the context."""
    logger = logging.getLogger("segdistill")
    before = logger.level
    logger.setLevel(max(logging.ERROR, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.setLevel(before)


def render(table: Table, width: int = 110) -> str:
    """A table as text."""
    console = Console(width=width, file=StringIO(), record=True, markup=False, emoji=False)
    for column in table.columns:
        column._cells[:] = [terminal_line(c) if isinstance(c, str) else c for c in column._cells]
        if isinstance(column.header, str):
            column.header = terminal_line(column.header)
    console.print(table)
    return console.export_text().rstrip()


def log_table(logger: logging.Logger, table: Table) -> None:
    """Log a table as one message."""
    # Not as an argument: those are kept to one line.
    logger.info("\n" + render(table))
