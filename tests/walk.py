"""Runs the commands of a page in the printed order, with the recipes that it shows."""

import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdistill.cli import main
from segdistill.data import build_dataset

SETUP = ("make ", "pip ", "python3 -m venv", "git ")
"""Commands that create the environment, which the tests already run in."""


def write_photographs(folder: Path, count: int = 30, size: tuple[int, int] = (48, 64)) -> None:
    """A user's folder: JPEG photographs, and PNG masks of 0, 128 (road) and 255 (car)."""
    scenes = build_dataset("synthetic", split="train", count=count, size=size, seed=7)
    ids = np.array([{"road": 128, "car": 255}.get(name, 0) for name in scenes.classes], np.uint8)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        image, label = scenes.load(number)
        picture = image.permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(folder / "images" / f"{number:04}.jpg", quality=95)
        Image.fromarray(np.append(ids, np.zeros(245, np.uint8))[label.numpy()]).save(
            folder / "masks" / f"{number:04}.png"
        )


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The code blocks of a page as (language, text), in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [(language, text) for language, text in found if language in languages]


def walk(
    page: Path, smaller: Sequence[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Follow a page in the working folder; return the commands that ran.

    Args:
        page: Its YAML blocks begin with the file that they are saved as, `# mine/student.yaml`.
        smaller: Patterns and replacements for recipes, such as fewer steps.
        monkeypatch: To hand `infer.py` its arguments.
    """
    done = []
    for language, text in blocks(page, "yaml", "bash"):
        if language == "yaml":
            _save(text, smaller)
            continue
        for line in text.splitlines():
            command = line.partition("  #")[0].strip()
            if not command or command.startswith(SETUP):
                continue
            words = shlex.split(command)
            if words[0] == "segdistill":
                main(words[1:])
            elif words[0] == "python":
                monkeypatch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")
            else:
                raise AssertionError(f"{page.name}: no way to run {command!r}")
            done.append(command)
    return done


def _save(text: str, smaller: Sequence[tuple[str, str]]) -> None:
    name = re.match(r"# (\S+\.yaml)\n", text)
    if name is None:
        return
    for pattern, replacement in smaller:
        text = re.sub(pattern, replacement, text)
    Path(name[1]).parent.mkdir(parents=True, exist_ok=True)
    Path(name[1]).write_text(text)
