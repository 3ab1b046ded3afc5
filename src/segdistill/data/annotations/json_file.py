"""Reading a JSON file of labels: what is wrong with it is one line with the place."""

import json
import os
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """The text of a file of labels.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a regular file, or not text in UTF-8.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path}: no such label file")
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file; expected labels. Replace or remove it")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} is not UTF-8; expected labels as text. Export them again"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The mapping that a JSON file holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or holds something else.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: line {error.lineno}, column {error.colno} is not JSON ({error.msg}); expected labels. "
            "The file is damaged or cut off: export it again"
        ) from None
    except (
        RecursionError,
        ValueError,
    ) as error:  # nested too deeply, or numbers of thousands of digits
        raise ValueError(
            f"{path} cannot be read ({error!s:.80}); expected labels. Export it again"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}; expected a mapping. Export the labels again"
        )
    return content


def items(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """A list of mappings in a file of labels.

    Raises:
        ValueError: It is missing, or no such list.
    """
    found = content.get(key)
    if not isinstance(found, list):
        there = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise ValueError(
            f"{path} has no list {key!r}, but {there}; expected one. Check that this is the format that "
            "`labels` says"
        )
    for place, one in enumerate(found):
        if not isinstance(one, dict):
            raise ValueError(
                f"{path}: {key}[{place}] is {one!r:.40}; expected a mapping. Export the labels again"
            )
    return found
