"""`segdistill list`: the names that a recipe may use. Torch is imported only if needed."""

from importlib import import_module
from inspect import signature
from typing import Any

from rich.table import Table

from segdistill.config import option_texts
from segdistill.run.console import terminal

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
    table = Table("name", title=kind)
    if kind == "models":
        table.add_column("parameters", justify="right")
    elif kind == "losses":
        table.add_column("published forms")
    table.add_column("what it is")
    for name, text in _known(kind):
        columns = [_size(name)] if kind == "models" else [_forms(name)] if kind == "losses" else []
        table.add_row(name, *columns, text)
    terminal().print(table)


def _known(kind: str) -> list[tuple[str, str]]:
    if kind == "keys":
        return list(option_texts().items())
    module, table = _TABLES[kind]
    names: dict[str, Any] = getattr(import_module(module), table)
    rows = [(name, (entry.__doc__ or "").strip().splitlines()[0]) for name, entry in names.items()]
    if kind == "models":
        from segdistill.models.foreign.adapters import LIBRARIES

        rows += [(f"{library}:...", f"Networks of {LIBRARIES[library]}.") for library in LIBRARIES]
    return rows


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
