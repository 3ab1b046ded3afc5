"""The parts of the documentation that are read off the code: Markdown as text, made without Sphinx."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from inspect import isclass, signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object

import segdistill
from segdistill import cli
from segdistill.config import (
    EvaluationSetConfig,
    FoldConfig,
    Recipe,
    TermConfig,
    VariantConfig,
    option_texts,
)

NAMED = {
    "terms": TermConfig,
    "variants": VariantConfig,
    "evaluation": EvaluationSetConfig,
    "folds": FoldConfig,
}
"""Mappings of a recipe whose keys are free names, with what each name holds."""

_TYPES = {bool: "`true` or `false`", int: "integer", float: "number", str: "text", Any: "any value"}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [list(heads)]
    lines += [["---"] * len(lines[0])]
    lines += [[_escaped(" ".join(cell.split())) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _escaped(cell: str) -> str:
    """Bars would end the cell, and <words> outside of code would be taken for HTML."""
    outside = cell.replace("|", "\\|").split("`")
    outside[::2] = [text.replace("<", "\\<") for text in outside[::2]]
    return "`".join(outside)


def in_words(annotation: Any) -> str:
    """A type as a reader of a recipe or a command line writes it."""
    if annotation in _TYPES:
        return _TYPES[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        parts = [in_words(kind) for kind in inner if kind is not NoneType]
        return " or ".join(parts)
    if origin is tuple and inner[-1] is Ellipsis:
        return "`[number, ..]`"
    if origin is tuple:
        return "`[H, W]`" if inner == (int, int) else "`[low, high]`"
    if origin is dict:
        return "mapping"
    if origin is not None and issubclass(origin, Iterable):
        return f"list of {_plural(in_words(inner[0]))}" if inner else "list"
    return "mapping" if isclass(annotation) else str(annotation)


def _plural(word: str) -> str:
    return word if word.startswith("`") or word in ("text", "any value") else f"{word}s"


def in_yaml(value: Any) -> str:
    """A default as it would stand in a recipe; nothing where there is none."""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.4g}`"
    if isinstance(value, (tuple, list)):
        return f"`[{', '.join(f'{item:g}' if isinstance(item, float) else str(item) for item in value)}]`"
    return f"`{value}`"


# Commands --------------------------------------------------------------------------------------


def commands() -> dict[str, str]:
    """Every command and the first line of its help."""
    group = cli._parser(None)._subcommands_action
    return {choice.dest: choice.help for choice in group._choices_actions}


def command(name: str) -> str:
    """All options of a command: a usage line, its words and its options."""
    actions = [a for a in _command_actions(name) if a.dest not in ("help", "config")]
    keys = {f.name for f in fields(Recipe)} if name in cli._WITH_RECIPE else set()
    texts = _texts(name)
    words = [a for a in actions if not a.option_strings]
    options = [a for a in actions if a.option_strings and a.dest.split(".")[0] not in keys]
    usage = " ".join(
        ["segdistill", name, *map(_word, words), "[options]" if options or keys else ""]
    )
    text = f"```text\n{usage.strip()}\n```\n"
    if words:
        rows = [[f"`{a.dest.upper()}`", _word_text(a, texts)] for a in words]
        text += "\n" + table(["word", "what it is"], rows)
    if options:
        rows = [
            [
                f"`{a.option_strings[-1]}`",
                _action_type(a),
                in_yaml(a.default),
                a.help or texts.get(a.dest, ""),
            ]
            for a in options
        ]
        text += "\n" + table(["option", "value", "default", "what it does"], rows)
    if keys:
        text += (
            "\nEvery [key of a recipe](../recipe-keys.md) is an option, too: `--train.lr 0.1`, "
            "`--data.options '{\"limit\": 20}'`. It overrides what the file says.\n"
        )
    return text


def _command_actions(name: str) -> list[Any]:
    parser = cli._parser(name)._subcommands_action._name_parser_map[name]
    return list(parser._actions)


def _texts(name: str) -> dict[str, str]:
    """What the docstring of a command says of its arguments."""
    function = {**cli._WITH_RECIPE, **cli._COMMANDS}[name]
    return {p.arg_name: p.description or "" for p in parse_from_object(function).params}


def _word(action: Any) -> str:
    name = action.dest.upper()
    several = action.nargs in ("*", "+")
    name = f"{name}..." if several else name
    return f"[{name}]" if action.nargs in ("*", "?") else name


def _word_text(action: Any, texts: Mapping[str, str]) -> str:
    text = action.help or texts.get(action.dest, "")
    kind = getattr(action, "_typehint", None)
    return f"{text} One of {in_words(kind)}." if get_origin(kind) is Literal else text


def _action_type(action: Any) -> str:
    kind = getattr(action, "_typehint", None) or action.type or str
    return in_words(kind) + (", several" if action.nargs in ("*", "+") else "")


def command_table() -> str:
    """All commands, each with a link to its page."""
    rows = [[f"[`segdistill {name}`]({name}.md)", text] for name, text in commands().items()]
    return table(["command", "what it does"], rows)


# Recipe keys -----------------------------------------------------------------------------------


def recipe_keys() -> str:
    """Every key of a recipe with type, default and meaning, a table for each part."""
    parts = {"": "The parts of a recipe"} | {
        f.name: f"`{f.name}`" for f in fields(Recipe) if _inner(Recipe, f.name) is not None
    }
    texts = option_texts()
    found = []
    for part, title in parts.items():
        kind = Recipe if not part else _inner(Recipe, part)
        prefix = f"{part}." if part else ""
        found.append(_key_section(kind, prefix, title, texts))
    for name, kind in NAMED.items():
        prefix = f"{name}.NAME."
        title = f"`{name}`, each by a name"
        found.append(_key_section(kind, prefix, title, option_texts(kind, prefix)))
    return "\n".join(found)


def _key_section(kind: Any, prefix: str, title: str, texts: Mapping[str, str]) -> str:
    types = get_type_hints(kind)
    rows = []
    for entry in fields(kind):
        default = entry.default if entry.default is not MISSING else None
        if entry.default_factory is not MISSING:
            default = entry.default_factory()
        shown = in_yaml(default) if not hasattr(default, "__dataclass_fields__") else ""
        key = prefix + entry.name
        rows.append([f"`{key}`", in_words(types[entry.name]), shown, texts[key]])
    return f"## {title}\n\n" + table(["key", "value", "default", "what it is"], rows)


def _inner(kind: type, name: str) -> Any:
    annotation = get_type_hints(kind)[name]
    choices = (
        get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    )
    return next((c for c in choices if hasattr(c, "__dataclass_fields__")), None)


# Tables and API --------------------------------------------------------------------------------


def _entries(kind: str) -> Mapping[str, Any]:
    if kind == "losses":
        from segdistill.losses import LOSSES as entries
    elif kind == "methods":
        from segdistill.distillation.catalogue import METHODS as entries
    elif kind == "networks":
        from segdistill.models import MODELS as entries
    else:
        from segdistill.data import DATASETS as entries
    return entries


def _object_directive(thing: Any, path: str | None = None, members: str = "") -> Iterator[str]:
    kind = "autoclass" if isclass(thing) else "autofunction"
    yield f".. {kind}:: {path or f'{thing.__module__}.{thing.__qualname__}'}"
    if isclass(thing) and members:
        yield f"   :members: {members}"
    yield ""


def _rst(lines: Iterable[str]) -> str:
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```\n"


def api_public() -> str:
    """The public names of `import segdistill`."""
    lines = []
    for name in segdistill.__all__:
        if name.startswith("__"):
            continue
        thing = getattr(segdistill, name)
        lines += _object_directive(thing, f"segdistill.{name}")
    return _rst(lines)


def _named_objects(kind: str) -> str:
    """Each entry of a table under the name that a recipe uses."""
    found = []
    for name, thing in _entries(kind).items():
        found.append(f"## `{name}`\n\n" + _rst(_object_directive(thing)))
    return "\n".join(found)


def api_losses() -> str:
    """Every loss, under the name that recipes use."""
    return _named_objects("losses")


def api_datasets() -> str:
    """Every data set, under the name that recipes use."""
    return _named_objects("datasets")


def api_networks() -> str:
    """Every network with its options, under the name that recipes use."""
    return _named_objects("networks")


def api_methods() -> str:
    """The terms of every method in both presets, and where each weight comes from."""
    from segdistill.distillation.catalogue import PRESETS, method_terms

    found = []
    for name, builder in _entries("methods").items():
        summary = " ".join((builder.__doc__ or "").split("\n\n")[0].split())
        rows = []
        for preset in PRESETS:
            for term, spec in method_terms(name, preset).items():
                options = ", ".join(f"{k}: {v}" for k, v in spec.options.items())
                rows.append(
                    [
                        f"`{preset}`",
                        f"`{term}`",
                        f"{spec.weight:g}",
                        f"`{spec.on}`",
                        options,
                        spec.source,
                    ]
                )
        heads = ["preset", "term", "weight", "tap", "options", "source of the weight"]
        found.append(f"## `{name}`\n\n{summary}\n\n" + table(heads, rows))
    return "\n".join(found)


def api_contract() -> str:
    """What a network, a loss, a data set promise, and the run folder that is read."""
    from segdistill.data import LabelMap, SegmentationDataset
    from segdistill.losses import Adversary, Loss
    from segdistill.models import InputNormalisation, SegmentationModel, wrap
    from segdistill.run.folder import RunFolder

    lines: list[str] = []
    for thing, members in (
        (SegmentationModel, "released_values, in_channels"),
        (wrap, ""),
        (InputNormalisation, ""),
        (Loss, "build, prepare"),
        (Adversary, ""),
        (SegmentationDataset, ""),
        (LabelMap, ""),
        (RunFolder, "config, metrics, evaluation, model_info"),
    ):
        lines += _object_directive(thing, members=members)
    return _rst(lines)


def network_table(classes: int = 19) -> str:
    """Every network by name, with its parameters and what it is."""
    import torch

    rows = []
    for name, builder in _entries("networks").items():
        summary = (builder.__doc__ or "").strip().splitlines()[0]
        size = "by encoder"
        if "encoder" not in signature(builder).parameters:
            with torch.device("meta"):
                count = sum(p.numel() for p in builder(classes).parameters())
            size = f"{count / 1e6:.2f} M"
        rows.append([f"`{name}`", size, summary])
    return table(["name", f"parameters at {classes} classes", "what it is"], rows)


def summary_table(kind: str) -> str:
    """The names of losses, methods or data sets with the first line of each docstring."""
    rows = [
        [f"`{name}`", (thing.__doc__ or "").strip().splitlines()[0]]
        for name, thing in _entries(kind).items()
    ]
    return table(["name", "what it is"], rows)


PARTS: dict[str, Callable[..., str]] = {
    "command": command,
    "commands": command_table,
    "recipe-keys": recipe_keys,
    "api-public": api_public,
    "api-losses": api_losses,
    "api-methods": api_methods,
    "api-networks": api_networks,
    "api-datasets": api_datasets,
    "api-contract": api_contract,
    "networks": network_table,
    "names": summary_table,
}
"""What a page asks for: a `{generated}` block whose argument is one of these words and its own arguments."""


def part(request: str) -> str:
    """The Markdown of a request such as `command train`."""
    word, *arguments = request.split()
    return PARTS[word](*arguments)


# Docstrings ------------------------------------------------------------------------------------

_RULE = re.compile(r"^\s*\|[\s:|-]+\|\s*$")


def to_rst(lines: list[str]) -> list[str]:
    """Docstrings are written for the eye: their Markdown tables and formulas as reStructuredText."""
    result: list[str] = []
    left = list(lines)
    while left:
        line = left.pop(0)
        if line.lstrip().startswith("|") and left and _RULE.match(left[0]):
            left.pop(0)
            rows = [line]
            while left and left[0].lstrip().startswith("|"):
                rows.append(left.pop(0))
            result += _list_table(rows)
        elif _is_formula(line, result):
            result += ["::", "", line]
            while left and (left[0].startswith(" ") or not left[0].strip()):
                result.append(left.pop(0))
        else:
            result.append(line)
    return result


def _is_formula(line: str, before: list[str]) -> bool:
    """Indented by four after an empty line below plain text."""
    text = next((other for other in reversed(before) if other.strip()), "")
    plain = bool(text) and text[0] not in " :.*-"
    return line.startswith("    ") and bool(before) and not before[-1].strip() and plain


def _list_table(rows: list[str]) -> list[str]:
    indent = rows[0][: len(rows[0]) - len(rows[0].lstrip())]
    lines = [f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]
        lines += [f"{indent}   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(cells)]
    return [*lines, ""]
