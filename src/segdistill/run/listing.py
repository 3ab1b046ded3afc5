"""`segdistill list`: the names that a recipe may use, from a file, as importing torch takes seconds."""

import json
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from rich.table import Table

from segdistill.run.console import terminal

NAMES = Path(__file__).parent / "names.json"
"""The rows of each kind, read off the code by `python docs/names.py`."""

KINDS = {
    "losses": "functions that the terms of a method compute",
    "methods": "named sets of terms",
    "models": "networks to train, with their parameters",
    "datasets": "images and labels",
    "keys": "keys of a recipe, which are also options of train, check and compare",
}
_TABLES = {
    "losses": ("segdistill.losses", "LOSSES"),
    "methods": ("segdistill.distillation.catalogue", "METHODS"),
    "models": ("segdistill.models", "MODELS"),
    "datasets": ("segdistill.data", "DATASETS"),
}
_FURTHER = {"models": "parameters", "losses": "published forms"}


def list_kinds() -> None:
    """Print the kinds of names, and the command that lists each."""
    table = Table("kind", "what it is", "command", title="What a recipe may use")
    for kind, text in KINDS.items():
        table.add_row(kind, text, f"segdistill list {kind}")
    terminal().print(table)


def list_names(kind: str) -> None:
    """Print the names of one kind with their descriptions.

    Losses are listed with their published forms, networks with their parameters for 19 classes.

    Args:
        kind: A key of `KINDS`.
    """
    heads = [_FURTHER[kind]] if kind in _FURTHER else []
    table = Table("name", *heads, "what it is", title=kind)
    if kind == "models":
        table.columns[1].justify = "right"
    for row in json.loads(NAMES.read_text("utf-8"))[kind]:
        table.add_row(*row)
    terminal().print(table)


def rows(kind: str) -> list[list[str]]:
    """The rows of one kind as the code has them: name, what `_FURTHER` says, first line of the description."""
    columns: dict[str, Callable[[str], str]] = {"models": _size, "losses": _forms}
    further = columns.get(kind)
    return [[name, *([further(name)] if further else []), text] for name, text in _known(kind)]


def _known(kind: str) -> list[tuple[str, str]]:
    if kind == "keys":
        from segdistill.config import option_texts

        return list(option_texts().items())
    module, table = _TABLES[kind]
    names: dict[str, Any] = getattr(import_module(module), table)
    known = [(name, (entry.__doc__ or "").strip().splitlines()[0]) for name, entry in names.items()]
    if kind == "models":
        from segdistill.models.foreign.adapters import LIBRARIES

        known += [(f"{library}:...", f"Networks of {LIBRARIES[library]}.") for library in LIBRARIES]
    return known


def _forms(loss: str) -> str:
    """The published forms of a loss, the values of its `form=`."""
    from segdistill.losses import LOSSES

    return ", ".join(getattr(LOSSES[loss], "forms", ()))


def _size(model: str, classes: int = 19) -> str:
    """Number of parameters of a network, counted on the meta device."""
    import torch

    from segdistill.models import MODELS, build_model

    if ":" in model:
        return "by name"
    if "encoder" in signature(MODELS[model]).parameters:
        return "by encoder"
    with torch.device("meta"):
        count = sum(p.numel() for p in build_model(model, classes).parameters())
    return f"{count / 1e6:.2f} M"
