"""Read recipe files, checking keys and types before anything is built."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from segdistill.config import (
    DataConfig,
    Recipe,
    TeacherConfig,
    TrainConfig,
    annotation_at,
    check_keys,
    check_ranges,
    option_texts,
    to_dict,
)
from segdistill.names import shortened, size_in
from segdistill.yaml_files import load_yaml, read_yaml

_log = logging.getLogger(__name__)

KEYS = [entry.name for entry in fields(Recipe)]
"""The keys of a recipe's first level."""

_NETWORK = ("factory", "weights", "options", "taps")
_OWNED = {
    "student": _NETWORK,
    "teacher": ("run", "model", *_NETWORK, "labels", "channels", "scale"),
    "data": ("root", "options", "train_options", "val_options"),
}
"""Keys of a part that apply only to the network or data set that it names."""
_IN_WORDS = {"student": "student", "teacher": "teacher", "data": "data set"}
_RUN = object()


def recipe_parser() -> ArgumentParser:
    """A parser that knows every key of a recipe as an option (`--train.lr 0.1`)."""
    # The docstring below a field of the dataclasses is its --help text.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False, default_env=False, prog="segdistill train RECIPE")
    parser.add_class_arguments(Recipe, nested_key=None)
    return parser


_parser = cache(recipe_parser)


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        path: YAML file; see `read_recipe` for its `base`.
        overrides: Options such as `["--train.lr", "0.1", "--terms.channelwise.weight", "5"]`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A key does not exist (the message gives its path and the nearest key), or a value
            has the wrong type.
    """
    return parse_recipe(read_recipe(Path(path)), overrides, str(path))


def read_recipe(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read the values of a recipe file, merged into those of the recipe named by its key `base`.

    Mappings are merged key by key, at every depth; any other value replaces the base's.

    Args:
        path: YAML file; its `base` is a path relative to its folder.
        above: Files that this one is a base of.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a recipe, or recipes are each other's base.
    """
    if path.resolve() in above:
        names = " -> ".join(file.name for file in (*above, path))
        raise ValueError(
            f"{above[0]}: recipes are each other's base ({names}). Remove one of these keys"
        )
    values = read_yaml(path)
    if "base" not in values:
        return values
    base = values.pop("base")
    if not isinstance(base, str):
        raise ValueError(f"{path}: base is {base!r:.60}; expected the path of a recipe")
    try:
        below = read_recipe(path.parent / Path(base).expanduser(), (*above, path.resolve()))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: base: {error}") from None
    tell_dropped(below, values, str(path))
    return joined(below, values)


def tell_dropped(below: Mapping[str, Any], upon: Mapping[str, Any], source: str) -> None:
    """Warn of what `joined` leaves out of a recipe, since `upon` names another network or data set."""
    for part in _OWNED:
        if lost := _outdated(part, below.get(part), upon.get(part)):
            _log.warning(
                "%s replaces the %s; not taken over from the former one: %s",
                source,
                _IN_WORDS[part],
                ", ".join(lost),
            )


def joined(
    below: dict[str, Any], upon: dict[str, Any], place: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Merge two mappings key by key, at every depth; any other value of `upon` replaces that of `below`.

    Where `upon` names another network or data set, what `below` states of the former one is left out.

    Args:
        below: The values to change.
        upon: The changes.
        place: Path of both in a recipe; a method's name becomes a mapping where keys are added to it.

    Example:
        >>> joined({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
        {'a': {'b': 1, 'c': 3}}
    """
    lost = _outdated(place[0], below, upon) if len(place) == 1 else []
    result = {key: value for key, value in below.items() if key not in lost}
    for key, value in upon.items():
        old = _as_mapping(result.get(key), (*place, key))
        if isinstance(old, dict) and isinstance(value, dict):
            value = joined(old, value, (*place, key))
        result[key] = value
    return result


def _outdated(part: str, below: Any, upon: Any) -> list[str]:
    """The keys of a part that do not apply to the network or data set that `upon` names instead."""
    if part not in _OWNED or not (isinstance(below, dict) and isinstance(upon, dict)):
        return []
    names = [_named(part, values) for values in (below, upon)]
    if None in names or names[0] == names[1]:
        return []
    return [
        key
        for key, value in below.items()
        if key in _OWNED[part]
        and value not in (None, False, {})
        and not (key == "model" and key in upon)
    ]


def _named(part: str, values: dict[str, Any]) -> Any:
    """The network or data set of a part. All runs are alike, since folds name runs of one network."""
    if part == "teacher" and values.get("run") is not None:
        return _RUN
    return values.get("name" if part == "data" else "model")


def _as_mapping(value: Any, path: Sequence[str]) -> Any:
    """`{name: kd}` for the method `kd` of a recipe or a variant, so that `preset` can be added."""
    method = list(path) == ["method"] or (
        len(path) == 3 and (path[0], path[2]) == ("variants", "method")
    )
    return {"name": value} if method and isinstance(value, str) else value


def parse_recipe(
    values: dict[str, Any], overrides: list[str] | None = None, name: str = "recipe"
) -> Recipe:
    """Parse plain values and overrides into a recipe; `values` is not changed.

    Raises:
        ValueError: As for `load_recipe`.
    """
    merged = _at_home(_with_on(_overridden(_plain(values), split_options(overrides or []))))
    _name_precision(merged)
    _read_sizes(merged)
    check_keys(merged)
    parser = _parser()
    try:
        recipe = Recipe(**vars(parser.instantiate(parser.parse_object(deepcopy(merged)))))
    except Exception as error:
        raise ValueError(f"{name}: {_one_line(_error_within(merged) or error)}") from None
    _restore_options(recipe, merged)
    check_ranges(recipe)
    for variant in recipe.variants:
        variant_training(recipe, variant)
        variant_teacher(recipe, variant)
    return recipe


def measured_data_keys() -> dict[str, str]:
    """The keys of a recipe's data that concern what is measured, with what each is."""
    texts = option_texts(DataConfig)
    return {key: text for key, text in texts.items() if not key.startswith("train_")}


def changed_data(data: DataConfig, changes: Mapping[str, str]) -> DataConfig:
    """The data of a recipe with some of its keys replaced by values as given on the command line.

    Raises:
        ValueError: A key does not exist, or a value has the wrong type.
    """
    options = [f"--data.{key}={text}" for key, text in changes.items()]
    values = {"data": to_dict(Recipe(data=data))["data"]}
    made = parse_recipe(values, options, "evaluate").data
    # The name of a run's data is marked as the run's, not the user's.
    return made if "name" in changes else replace(made, name=data.name)


def _error_within(values: dict[str, Any]) -> Exception | None:
    """The error inside a part, of which the parser of all parts may name only the part, or another one."""
    for key, annotation in get_type_hints(Recipe).items():
        if get_origin(annotation) is dict:  # parts of its own names
            continue
        kinds = (annotation, *get_args(annotation))
        kind = next((kind for kind in kinds if is_dataclass(kind)), None)
        if kind is None or not isinstance(values.get(key), dict):
            continue
        parser = ArgumentParser(exit_on_error=False, default_env=False)
        parser.add_class_arguments(kind, nested_key=key)  # type: ignore[arg-type]
        try:
            parser.parse_object({key: deepcopy(values[key])})
        except Exception as error:
            return error
    return None


def variant_training(recipe: Recipe, name: str) -> TrainConfig:
    """The `train` of a variant: the recipe's, with the variant's changes.

    Raises:
        ValueError: A key does not exist or is `seed`, or a value has the wrong type or is out of range.
    """
    changes = recipe.variants[name].train
    if not changes:
        return recipe.train
    check_keys(changes, TrainConfig, f"variants.{name}.train.")
    if changes.get("precision") == "auto":
        raise ValueError(
            f"variants.{name}.train.precision is auto; expected 32, bf16 or fp16. Set auto in train, for all rows"
        )
    if "seed" in changes:
        raise ValueError(
            f"variants.{name}.train.seed is {changes['seed']}; expected none, as all variants share the "
            "seeds of the comparison. Remove it"
        )
    values = joined(to_dict(recipe)["train"], changes)
    try:
        return parse_recipe({"train": values}).train
    except ValueError as error:
        message = str(error).removeprefix("recipe: ")
        raise ValueError(f"variants.{name}.{message}") from None


def variant_teacher(recipe: Recipe, name: str) -> TeacherConfig | None:
    """The teacher of a variant: the recipe's, or the same one with random weights.

    Raises:
        ValueError: A key does not exist, a value has the wrong type, or the changes make another teacher
            than one with random weights.
    """
    changes = recipe.variants[name].teacher
    if not changes:
        return recipe.teacher
    key = f"variants.{name}.teacher"
    check_keys(changes, TeacherConfig, f"{key}.")
    if changes.get("random") is not True:
        raise ValueError(
            f"{key} changes the teacher; expected random: true, as all other variants share one teacher. Compare "
            "teachers in recipes of their own"
        )
    if recipe.teacher is None:
        raise ValueError(f"{key} is given, but the recipe has no teacher. Add one")
    try:
        return parse_recipe(
            joined({"teacher": to_dict(recipe)["teacher"]}, {"teacher": changes})
        ).teacher
    except ValueError as error:
        message = str(error).removeprefix("recipe: ")
        raise ValueError(f"variants.{name}.{message}") from None


def _with_on(value: Any) -> Any:
    """Restore the key `on` of a term, which YAML 1.1 reads as true unless quoted."""
    if not isinstance(value, dict):
        return value
    return {"on" if key is True else key: _with_on(item) for key, item in value.items()}


def _plain(value: Any) -> Any:
    """Numbers, arrays and tensors of NumPy and torch as Python's own, as a recipe made in Python may hold them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else value


_PATHS = {"out", "root", "run", "weights"}
_OPTIONS = {"options", "train_options", "val_options"}


def _at_home(value: Any, key: str = "", option: bool = False) -> Any:
    """Paths that begin with ~ as absolute ones: no shell expands them in a file, nor in `--out=~/runs/a`."""
    if isinstance(value, dict):
        return {
            name: _at_home(item, name, option or key in _OPTIONS) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_at_home(item, key, option) for item in value]
    # Only a data set or an observer knows which of its options are paths.
    is_path = isinstance(value, str) and (key in _PATHS or (option and value.startswith("~/")))
    return os.path.expanduser(value) if is_path else value


def _name_precision(values: dict[str, Any]) -> None:
    """Read the precision 32 as the name that it is: YAML takes it for a number."""
    variants = values.get("variants")
    parts = [values, *(variants.values() if isinstance(variants, dict) else [])]
    for part in parts:
        training = part.get("train") if isinstance(part, dict) else None
        if isinstance(training, dict) and type(training.get("precision")) is int:
            training["precision"] = str(training["precision"])


def _read_sizes(values: dict[str, Any]) -> None:
    """Read a size such as 512x1024, as `suggest` takes and prints it, as the list [512, 1024]."""
    for part, kind in get_type_hints(Recipe).items():
        given = values.get(part)
        if not is_dataclass(kind) or not isinstance(given, dict):
            continue
        for key, annotation in get_type_hints(kind).items():
            if not _is_size(annotation) or not isinstance(given.get(key), str):
                continue
            if size := size_in(given[key]):
                given[key] = list(size)


def _is_size(annotation: Any) -> bool:
    return tuple[int, int] in (annotation, *get_args(annotation))


def _restore_options(part: Any, values: dict[str, Any]) -> None:
    """Restore options as written: jsonargparse parses strings among them as YAML ("no" as false)."""
    types = get_type_hints(type(part))
    for key, value in values.items():
        current = getattr(part, key)
        if types[key] == dict[str, Any]:
            setattr(part, key, value)
        elif isinstance(value, dict) and is_dataclass(current):
            _restore_options(current, value)
        elif isinstance(value, dict) and get_origin(types[key]) is dict:
            for name, entry in value.items():
                if is_dataclass(current[name]):
                    _restore_options(current[name], entry)
        elif isinstance(value, list) and isinstance(current, list):
            for number, entry in enumerate(value):
                if is_dataclass(current[number]):
                    _restore_options(current[number], entry)


def split_options(arguments: Sequence[str]) -> dict[str, str]:
    """Parse `["--train.lr", "0.1", "--out=runs/a"]` into names and values as text.

    Raises:
        ValueError: A word is not an option, or an option has no value.
    """
    options: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            raise ValueError(f"{word!r} is not an option; expected one such as --train.lr 0.1")
        name, equals, text = word.removeprefix("--").partition("=")
        given = text if equals else next(words, None)
        if given is None or (not equals and given.startswith("--")):
            raise ValueError(f"--{name} has no value; expected --{name} VALUE")
        options[name] = given
    return options


def _overridden(values: dict[str, Any], options: dict[str, str]) -> dict[str, Any]:
    """The values with options of the command line, which change them as a recipe changes its `base`."""
    changes: dict[str, Any] = {}
    for name, text in options.items():
        path = name.split(".")
        value = _value(text, path)
        if value == {}:
            values, changes = _emptied(values, path), _emptied(changes, path)
        for key in reversed(path):
            value = {key: value}
        changes = joined(changes, value)
    tell_dropped(values, changes, "the command line")
    return deepcopy(joined(values, changes))


def _emptied(values: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The values with an empty mapping at a path, which merging with one would not make."""
    key, *rest = path
    if key not in values:
        return values
    inner = values[key]
    return {**values, key: _emptied(inner, rest) if rest and isinstance(inner, dict) else {}}


def _value(text: str, path: list[str]) -> Any:
    """Parse text as YAML, unless the key expects text (`--train.precision 32`)."""
    try:
        value = load_yaml(text)
    except (yaml.YAMLError, ValueError):
        value = text
    annotation = annotation_at(path)
    kinds = [annotation, *get_args(annotation)]
    takes_text = any(kind is str or isinstance(kind, str) for kind in kinds)
    plain = value is not None and not isinstance(value, (dict, list))
    return text if takes_text and plain else value


_UNION = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .*"
    r"Given value: ?(.*)"
)
_ENTRY = re.compile(
    r"""Parser key "([^"]*)": Problem with given class_path '[^']*': Parser key \""""
)
_WRONG_VALUE = re.compile(
    r'Parser key "([^"]*)"(?: element \d+)?: Expected (.*?)\. Got value: ?(.*)'
)
_KINDS = {
    "a float": "a number",
    "a int": "an integer",
    "a bool": "true or false",
    "a str": "text",
    "a dict": "a mapping",
    "a list": "a list such as [a, b]",
    "one of str, null": "text or null",
    "one of float, null": "a number or null",
    "one of int, null": "an integer or null",
    "a tuple with 2 elements": "a list of two values",
    "a tuple": "a list of values",
}


def _one_line(error: Exception) -> str:
    """Rewrite jsonargparse's message in the form `train.lr is abc; expected a number`."""
    text = " ".join(str(error).split())
    text = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", text).replace("NoneType", "null")
    while (shorter := _ENTRY.sub(r'Parser key "\1.*.', text)) != text:  # entries within entries
        text = shorter
    text = _UNION.sub(r"Expected one of \1. Got value: \2", text)
    match = _WRONG_VALUE.fullmatch(text)
    if match is None:
        return re.sub(r'^Parser key "([^"]*)":', r"\1:", text)
    value = shortened(match[3], 100) or "empty text"
    if _is_size(annotation_at(match[1].split("."))):
        return f"{match[1]} is {value}; expected height x width in pixels, such as 512x1024"
    return f"{match[1]} is {value}; expected {_KINDS.get(match[2], match[2])}"


def recipe_name(path: str | Path) -> str:
    """`camvid/idd` for recipes/camvid/idd.yaml, used in the default run folder."""
    file = Path(path).resolve()
    return f"{file.parent.name}/{file.stem}"


def recipes_folder() -> Path:
    """Folder of the recipes, in the installed package or in the checkout."""
    inside = Path(__file__).parents[1] / "recipes"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "recipes"
