"""Recipes that a tired, careless or hostile hand could write, each one change away from a good one."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from segdistill.models import build_model
from tests.run import small

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    10**18,
    "",
    "x",
    "\x1b[31m",
    "../..",
    [],
    [1],
    [1, 2, 3],
    [-1, -1],
    [None, None],
    {},
    {"a": 1},
    {1: 2},
    {None: None},
    [[1]],
    "a" * 5000,
    3.7,
    "1e400",
    [float("inf"), 1],
]
TEXTS = {
    "a value inside itself": "data: &d\n  name: synthetic\n  options: *d\n",
    "many aliases": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(
        f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in ["ab", "bc", "cd", "de", "ef"]
    ),
    "deep nesting": "data: " + "[" * 2000 + "]" * 2000,
    "very deep nesting": "data: " + "[" * 200_000,
    "a Python object": "data: !!python/object/apply:os.system ['true']\n",
    "a number": "7",
    "a list": "[1, 2]",
    "nothing": "",
    "a duplicate key": "train: {steps: 1}\ntrain: {stepz: 2}\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "tabs": "data:\n\tname: synthetic\n",
    "binary": "\x00\x01",
}


def good(folder: Path) -> dict[str, Any]:
    """A recipe with every key, that trains one step; the teacher's weights lie in `folder`."""
    weights = folder / "teacher.safetensors"
    if not weights.exists():
        save_file(build_model(small.MODEL, small.CLASSES, width=8).state_dict(), weights)
    train = {
        "steps": 1,
        "batch": 2,
        "crop": [32, 48],
        "scale": [1.0, 1.0],
        "flip": 0.5,
        "photometric": 0.0,
        "optimizer": "sgd",
        "lr": 0.1,
        "head_lr_factor": 1.0,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "power": 0.9,
        "warmup": 0,
        "clip": None,
        "skip_nonfinite": 0,
        "accumulate": 1,
        "precision": "32",
        "channels_last": False,
        "seed": 0,
        "val_every": 0,
        "save_every": 2,
        "log_every": 1,
        "workers": 0,
        "device": "cpu",
        "deterministic": False,
    }
    network = {"model": small.MODEL, "options": {"width": 8}, "taps": {}}
    return {
        "data": {
            "name": "synthetic",
            "root": None,
            "size": [32, 48],
            "train_split": "train",
            "val_split": "val",
            "options": {"size": [32, 48], "count": 4},
            "train_options": {"count": 4},
            "val_options": {"count": 4},
        },
        "student": {**copy.deepcopy(network), "weights": None},
        "teacher": {
            **copy.deepcopy(network),
            "run": None,
            "weights": str(weights),
            "labels": None,
            "channels": None,
            "scale": 1.0,
            "min_miou": 0,
        },
        "method": {"name": "kd", "preset": "default", "labels": "data"},
        "terms": {
            "pixelwise": {
                "loss": None,
                "weight": 1.0,
                "on": "logits",
                "options": {"temperature": 2},
            }
        },
        "variants": {"v": {"method": "kd", "terms": {"pixelwise": {"weight": 1}}}},
        "train": train,
        "evaluate": {
            "window": None,
            "overlap": 0.3,
            "flip": False,
            "scales": [1.0],
            "absent": "undefined",
        },
        "observers": [],
        "out": None,
        "label": None,
    }


def _paths(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))


def recipes(folder: Path, seed: int = 0) -> list[tuple[str, Any, dict[str, Any]]]:
    """Every key with every hostile value, in a random order: the key, the value, the recipe."""
    base = good(folder)
    cases = []
    for path in _paths(base):
        for value in VALUES:
            recipe = copy.deepcopy(base)
            place = recipe
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            cases.append((".".join(path), value, recipe))
    random.Random(seed).shuffle(cases)
    return cases
