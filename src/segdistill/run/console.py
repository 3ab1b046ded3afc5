"""Tables and log lines for a terminal."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table


def set_up_logging(debug: bool = False) -> None:
    """Send the package's log to standard error; only the first process logs."""
    logger = logging.getLogger("segdistill")
    logger.handlers = [_handler()]
    logger.propagate = False
    first = os.environ.get("RANK", "0") == "0"
    logger.setLevel(logging.DEBUG if debug else logging.INFO if first else logging.ERROR)
    # Fabric logs devices and hints of its own, which do not concern users of this package.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def _handler() -> logging.Handler:
    console = Console(stderr=True)
    # Not rich in a file or a pipe, where it would wrap paths and tables at 80 columns.
    if console.is_terminal:
        return RichHandler(
            console=console, show_time=False, show_level=False, show_path=False, markup=False
        )
    # Notebooks highlight standard error as if something had failed.
    return logging.StreamHandler(sys.stdout if console.is_jupyter else None)


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
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def render(table: Table, width: int = 110) -> str:
    """A table as text."""
    console = Console(width=width, file=StringIO(), record=True)
    # Names of classes and files may contain brackets, which rich would read as markup.
    console.print(table, markup=False)
    return console.export_text().rstrip()


def log_table(logger: logging.Logger, table: Table) -> None:
    """Log a table as one message."""
    logger.info("%s", "\n" + render(table))
