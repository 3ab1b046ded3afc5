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
    """Send the package's log to standard error; processes other than the first stay silent."""
    logger = logging.getLogger("segdistill")
    logger.handlers = [_handler()]
    logger.propagate = False
    first = os.environ.get("RANK", "0") == "0"
    logger.setLevel(logging.DEBUG if debug else logging.INFO if first else logging.ERROR)
    # Fabric reports devices and its own hints, which are not this program's words.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def _handler() -> logging.Handler:
    console = Console(stderr=True)
    # In a file or a pipe a line stays a line: rich would wrap paths and tables at 80 columns.
    if console.is_terminal:
        return RichHandler(
            console=console, show_time=False, show_level=False, show_path=False, markup=False
        )
    # A notebook marks what goes to standard error as if it had gone wrong.
    return logging.StreamHandler(sys.stdout if console.is_jupyter else None)


@contextmanager
def spoken(progress: bool) -> Iterator[None]:
    """Show the package's log while a function called from Python runs, where nobody else does.

    An application that has set up logging, for the package or as a whole, keeps it as it is.

    Args:
        progress: False leaves everything as it is, and so usually silent.
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
    """Keep the package's log to errors for a while."""
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
    # Names of classes and files may hold brackets, which are no markup of rich's.
    console.print(table, markup=False)
    return console.export_text().rstrip()


def log_table(logger: logging.Logger, table: Table) -> None:
    """Log a table as one message."""
    logger.info("%s", "\n" + render(table))
