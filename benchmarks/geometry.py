"""What a student can score at most that copies its aligned target, by three rules of alignment.

On CamVid's validation split: a teacher with logits at stride 4 that divide the image (DeepLabV3+) and a
student with 12x15 logits corner on corner (the PSPNet of `recipes/camvid/student.yaml`), at 180x240. The
teacher's logits are those of a run, or without one what a faultless teacher would know: the labels, seen
at its cells. Each target is resized to the pixels as the student's logits are.

    python benchmarks/geometry.py data/camvid --out benchmarks/results/geometry.json
    python benchmarks/geometry.py data/camvid --teacher runs/camvid/teacher-s0
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segdistill.data import build_dataset
from segdistill.geometry import Cells, labels_at, resample, to_pixels
from segdistill.labels import IGNORED
from segdistill.run.environment import describe_environment
from segdistill.run.networks import load_run_model

IMAGE, TEACHER, STUDENT = (180, 240), (45, 60), (12, 15)
OWN = Cells.by_corners(STUDENT, IMAGE)
OTHER = Cells.by_corners(TEACHER, IMAGE, align_corners=False)


def half_pixels(target: Tensor) -> Tensor:
    return F.interpolate(target, STUDENT, mode="bilinear", antialias=True)


def cells(target: Tensor) -> Tensor:
    return resample(target, OTHER, OWN)


def strided(target: Tensor) -> Tensor:
    """As if convolutions alone placed the student's logits, at 16 · i."""
    return resample(target, OTHER, Cells.at(STUDENT, IMAGE, 16))


RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "half pixels (released)": half_pixels,
    "declared cells": cells,
    "stride · i": strided,
}


def seen(labels: Tensor, classes: int) -> Tensor:
    """Labels at the teacher's cells as scores, ignored ones 0 for every class."""
    here = labels_at(labels, OTHER)
    scores = F.one_hot(here.clamp_max(classes), classes + 1)[..., :classes].movedim(-1, 1)
    return scores.double().contiguous()


def confusion(found: Tensor, labels: Tensor, classes: int) -> Tensor:
    valid = labels != IGNORED
    pairs = torch.bincount(labels[valid] * classes + found[valid], minlength=classes**2)
    return pairs.view(classes, classes)


def miou(matrix: Tensor) -> float:
    hits = matrix.diagonal()
    unions = matrix.sum(0) + matrix.sum(1) - hits
    return 100 * float((hits / unions)[unions > 0].mean())


def measure(dataset: Any, teacher: torch.nn.Module | None, limit: int) -> dict[str, float]:
    classes = dataset.num_classes
    matrices = {
        name: torch.zeros(classes, classes, dtype=torch.long) for name in ("target", *RULES)
    }
    for index in range(min(limit, len(dataset))):
        sample = dataset[index]
        image = F.interpolate(sample["image"][None], IMAGE, mode="bilinear", antialias=True)
        labels = F.interpolate(sample["label"][None, None].double(), IMAGE, mode="nearest-exact")
        labels = labels[0].long()
        with torch.no_grad():
            target = seen(labels, classes) if teacher is None else teacher(image).double()
        found = {"target": to_pixels(target, OTHER)}
        found |= {name: to_pixels(rule(target), OWN) for name, rule in RULES.items()}
        for name, logits in found.items():
            matrices[name] += confusion(logits.argmax(1), labels, classes)
    return {name: round(miou(matrix), 2) for name, matrix in matrices.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder of CamVid")
    parser.add_argument("--teacher", help="finished run whose logits are the target")
    parser.add_argument("--limit", type=int, default=101)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    teacher = None if given.teacher is None else load_run_model(given.teacher)
    scores = measure(build_dataset("camvid", given.root, "val"), teacher, given.limit)
    for name, score in scores.items():
        print(f"{name:24} {score:6.2f}")
    if given.out is not None:
        report = {
            "command": " ".join(["python benchmarks/geometry.py", *sys.argv[1:]]),
            "target": "labels" if teacher is None else "teacher",
            "image": IMAGE,
            "cells": {"teacher": TEACHER, "student": STUDENT},
            "miou": scores,
            "environment": describe_environment(torch.device("cpu")),
        }
        given.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
