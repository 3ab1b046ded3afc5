"""Gradient shares of the default terms against the number of classes and the width of the features.

A default weight carries over to other data and networks where its term's share stays put. Regions of one
colour per class are drawn, 8 per image whatever the number of classes. A small network is trained on them as
the teacher; the student is half as wide and has random weights, so that cross-entropy is as large as it gets
whatever the task. The share of a term is the norm of its weighted gradient at the kernel that makes
`features`, relative to cross-entropy's; the figure is the median over four batches of each seed.

    python benchmarks/shares.py --out benchmarks/results/shares.json
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.distillation.catalogue import METHODS
from segdistill.distillation.distiller import Distiller
from segdistill.distillation.method import Method, TermSpec, build_terms
from segdistill.run.environment import describe_environment

REGIONS = 8
TEACHER_STEPS, BATCHES = 200, 4


@dataclass(frozen=True)
class Setting:
    """What is varied: classes, channels of the student's features, images, pixels a side."""

    classes: int = 19
    width: int = 128
    batch: int = 8
    side: int = 64


BASE = Setting()
SETTINGS = [
    *(replace(BASE, classes=classes) for classes in (5, 19, 150)),
    replace(BASE, width=64),
]


class Network(nn.Module):
    """Stride 4, `features` of a given width, a classifier."""

    align_corners = False

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_layer(3, 32, 2), *_layer(32, 64, 2))
        self.body = nn.Sequential(*_layer(64, width, 1)[:2])
        self.head = nn.Conv2d(width, classes, 1)
        self.taps = {"logits": "head", "features": "body"}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.body(self.stem(images))))
        return logits


def _layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    kernel = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [kernel, nn.BatchNorm2d(outputs), nn.ReLU()]


def scenes(setting: Setting, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of the regions nearest to eight points, in their classes' colours, darker to the upper left."""
    colours = torch.rand(setting.classes, 3, generator=torch.Generator().manual_seed(0))
    points = torch.rand(setting.batch, REGIONS, 2, generator=generator) * setting.side
    owners = torch.randint(0, setting.classes, (setting.batch, REGIONS), generator=generator)
    axis = torch.arange(setting.side) + 0.5
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
    nearest = torch.cdist(grid.expand(setting.batch, -1, -1), points).argmin(2)
    labels = owners.gather(1, nearest).unflatten(1, (setting.side, setting.side))
    light = 0.4 + 0.6 * (axis[:, None] + 0.5 * axis) / (1.5 * setting.side)
    clean = colours[labels].permute(0, 3, 1, 2) * light
    return clean + 0.1 * torch.randn(clean.shape, generator=generator), labels


def terms() -> dict[str, TermSpec]:
    """Every term of the default presets, and CWD as published: its sum divided by the channels."""
    found: dict[str, TermSpec] = {}
    for method in METHODS.values():
        found |= {name: spec for name, spec in method("default").items() if not spec.optional}
    for name in ("channelwise", "channelwise_features"):
        options = {"form": "mmrazor", "temperature": 4.0}
        found[f"{name} mmrazor"] = replace(found[name], options=options)
    return found


def trained_teacher(setting: Setting, generator: torch.Generator) -> Network:
    teacher = Network(2 * setting.width, setting.classes)
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(TEACHER_STEPS):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / TEACHER_STEPS) ** 0.9
        images, labels = scenes(setting, generator)
        logits = F.interpolate(teacher(images), labels.shape[1:], mode="bilinear")
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    return teacher.eval()


def shares(setting: Setting, seed: int) -> list[dict[str, float]]:
    """The shares of all terms on a few batches, before the student's first step."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    teacher = trained_teacher(setting, generator)
    method = Method("all", build_terms(terms(), setting.classes))
    distiller = Distiller(Network(setting.width, setting.classes), method, teacher)
    distiller.dry_pass(scenes(setting, generator)[0])
    distiller.prepare([scenes(setting, generator)[0] for _ in range(4)])
    distiller.train()
    rows = []
    for _ in range(BATCHES):
        distiller(*scenes(setting, generator))
        rows.append(distiller.gradient_shares())
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for setting in SETTINGS:
        found = [row for seed in range(options.seeds) for row in shares(setting, seed)]
        figures = {name: median(row[name] for row in found) for name in found[0]}
        rows.append({**asdict(setting), "shares": {n: round(v, 4) for n, v in figures.items()}})
        print(asdict(setting), flush=True)
    show(rows)
    if options.out:
        report = {
            "command": " ".join(["python benchmarks/shares.py", *sys.argv[1:]]),
            "environment": describe_environment(torch.device("cpu"), 1),
            "weights": {name: spec.weight for name, spec in terms().items()},
            "rows": rows,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def show(rows: list[dict]) -> None:
    """Print a column for each setting."""
    for key in ("classes", "width", "batch", "side"):
        print(f"{key:28}" + "".join(f"{row[key]:9}" for row in rows))
    for name in rows[0]["shares"]:
        print(f"{name:28}" + "".join(f"{row['shares'][name]:9.3f}" for row in rows))


if __name__ == "__main__":
    main()
