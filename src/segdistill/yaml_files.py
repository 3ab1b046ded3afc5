"""Reading YAML as a recipe's reader would expect it, and safely: no code in a file is run."""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

# As YAML 1.1 has it, so that text that looks like it is quoted where it is written.
_BASE_60 = re.compile(
    r"[-+]?(?:[1-9][0-9_]*(?::[0-5]?[0-9])+|[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)"
)


class _Loader(yaml.SafeLoader):
    """Reads what a recipe's reader would expect: no key twice, no numbers in base 60, and 010 and dates as text.

    YAML 1.1 takes the last of two equal keys, and reads 1:30 as 90 and 010 as 8.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.Mark] = {}
        # Before merge keys (<<) are resolved, which a mapping's own keys override.
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                first = seen.setdefault((key.tag, key.value), key.start_mark)
                if first is not key.start_mark:
                    problem = (
                        f"the key {key.value!r:.60} is there twice, first in line {first.line + 1}"
                    )
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if node.style is None and _BASE_60.fullmatch(node.value):
            problem = (
                f"{node.value} is a number in base 60 in YAML. Write a space after the colon of a key, or quote "
                "text"
            )
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """What plain scalars are, by their first letter, without numbers in base 8 or 60 and dates."""
    whole = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z")
    point = re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    )
    ours = {"int": whole, "float": point}
    return {
        first: [
            (tag, ours.get(tag.rpartition(":")[2], pattern))
            for tag, pattern in known
            if not tag.endswith(":timestamp")
        ]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.yaml_implicit_resolvers = _resolvers()


def load_yaml(text: str) -> Any:
    """Plain values of YAML 1.1 without its traps: 010 and dates are text.

    Raises:
        yaml.YAMLError: The text is not YAML, a mapping has a key twice, or 1:30 would be 90.
    """
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file safely, without running code in it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not YAML (the message gives the line), or not a mapping.
    """
    if os.path.lexists(path) and not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise FileNotFoundError(f"{path} is {what}; expected a YAML file")
    if not path.is_file():
        there = {file.stem: file for file in sorted(path.parent.glob("*.y*ml"))}
        near = get_close_matches(path.stem, there, n=1)
        hint = f"; did you mean {there[near[0]]}?" if near else ""
        raise FileNotFoundError(f"no recipe at {path}{hint or '. Name a YAML file'}")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ValueError(
            f"{path} has {size / 1e6:.0f} MB; expected at most {_MOST_BYTES / 1e6:.0f}, as a recipe is short"
        )
    try:
        values = load_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; expected a YAML file") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply; expected a recipe's few levels") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"{path} is not valid YAML{where}: {problem}") from None
    except ValueError as error:  # of a number, such as one of 5,000 digits
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    _check_nesting(values, path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {values!r:.60}; expected a mapping such as 'method: idd'")
    return values


_DEEPEST, _MOST_VALUES, _MOST_BYTES = 20, 100_000, 10_000_000


def _check_nesting(values: Any, path: Path) -> None:
    """Refuse aliases that nest a value in itself, or that expand a few lines to millions of values."""
    level, count = [values], 0
    for _ in range(_DEEPEST):
        level = [item for value in level for item in _items(value)]
        count += len(level)
        if count > _MOST_VALUES:
            raise ValueError(
                f"{path} holds more than {_MOST_VALUES} values. Remove aliases (*name)"
            )
        if not level:
            return
    raise ValueError(
        f"{path} is nested more than {_DEEPEST} levels deep. Remove aliases (*name) that occur inside "
        "themselves out"
    )


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []
