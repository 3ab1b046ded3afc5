"""Tables and log lines for a terminal."""

import logging
from io import StringIO

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table


def set_up_logging(debug: bool = False) -> None:
    """Send the package's log to standard error; processes other than the first stay silent."""
    import os

    console = Console(stderr=True)
    # In a file or a pipe a line stays a line: rich would wrap paths and tables at 80 columns.
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(
            console=console, show_time=False, show_level=False, show_path=False, markup=False
        )
    logger = logging.getLogger("segdistill")
    logger.handlers = [handler]
    logger.propagate = False
    first = os.environ.get("RANK", "0") == "0"
    logger.setLevel(logging.DEBUG if debug else logging.INFO if first else logging.ERROR)
    # Fabric reports devices and its own hints, which are not this program's words.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def render(table: Table, width: int = 110) -> str:
    """A table as text."""
    console = Console(width=width, file=StringIO(), record=True)
    # Names of classes and files may hold brackets, which are no markup of rich's.
    console.print(table, markup=False)
    return console.export_text().rstrip()


def log_table(logger: logging.Logger, table: Table) -> None:
    """Log a table as one message."""
    logger.info("%s", "\n" + render(table))
