"""One step in double precision on unevenly labelled images, in parts and over several processes."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from segdistill.config import TrainConfig
from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.labels import IGNORED
from segdistill.run.training.loop import Loop

IMAGES = 8
EXACT: dict[str, dict[str, Any]] = {
    "cross_entropy": {"options": {"weight": [0.2, 1.0, 3.0]}},
    "plain": {"loss": "cross_entropy", "weight": 1.0},
    "pixelwise": {"weight": 1.0, "options": {"temperature": 2.0}},
    "pixelwise_skd": {"loss": "pixelwise", "weight": 1.0, "options": {"form": "skd"}},
    "channelwise": {"weight": 3.0},
    "channelwise_features": {"loss": "channelwise", "weight": 2.0, "on": "features"},
    "boundary": {"weight": 5.0},
    "body": {"loss": "boundary", "weight": 3.0, "options": {"part": "body", "form": "paper"}},
    "pairwise": {"weight": 1.0, "on": "features"},
    "attention": {"weight": 1.0, "on": "features"},
    "intra_class": {"weight": 5.0, "on": "features"},
    "intra_class_ifvd": {
        "loss": "intra_class",
        "weight": 5.0,
        "on": "features",
        "options": {"form": "ifvd"},
    },
    "hint": {"weight": 2.0, "on": "features"},
    "hint_cirkd": {"loss": "hint", "weight": 1.0, "on": "features", "options": {"form": "cirkd"}},
    "inter_class": {"weight": 0.5, "on": "features", "options": {"form": "paper"}},
}
"""Terms without a statistic of their batch."""


class Plain(nn.Module):
    """No batch norm and no dropout: an image's gradient does not depend on the others."""

    align_corners = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, width, 3, stride=4, padding=1)
        self.head = nn.Conv2d(width, 3, 1)
        self.taps = {"logits": "head", "features": "body"}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.body(images)))
        return logits


def scenes() -> tuple[Tensor, Tensor]:
    """Images and labels: fewer labelled rows from image to image, one of one class, two of none."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(IMAGES, 3, 24, 32, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (IMAGES, 4, 4), generator=generator)
    labels = labels.repeat_interleave(6, 1).repeat_interleave(8, 2)
    for number in range(IMAGES):
        labels[number, : 3 * number] = IGNORED
    labels[1] = 2
    labels[IMAGES - 2 :] = IGNORED
    return images, labels


@contextmanager
def double() -> Iterator[None]:
    """Fabric gives outputs in the default type, whatever its precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@double()
def step(fabric: Fabric, folder: Path, accumulate: int, labels: Any = "data") -> dict[str, Any]:
    """Train one step at learning rate 1: the row of it, and the gradient that the weights moved by."""
    torch.manual_seed(0)
    student, teacher = Plain(4), Plain(6)
    method = build_method("supervised", 3, terms=EXACT)
    distiller = Distiller(student, method, teacher, labels)
    images, ids = scenes()
    distiller.dry_pass(images[:2])
    distiller.prepare([images[:2]] * 4)
    start = {name: value.clone() for name, value in distiller.state_dict().items()}
    share = IMAGES // fabric.world_size
    own = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    loaded = {
        "image": images[own],
        "label": ids[own],
        "name": [str(n) for n in range(share)],
        "labelled": torch.arange(IMAGES)[own] < IMAGES - 2,
    }

    def loader(_start: int) -> Iterator[dict[str, Any]]:
        yield loaded

    config = TrainConfig(
        steps=1, batch=IMAGES, accumulate=accumulate, lr=1.0, momentum=0.0, weight_decay=0.0
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    Loop(fabric, distiller, config, folder, loader).run(progress=False)
    fabric.barrier()
    row = json.loads((folder / "metrics.jsonl").read_text())
    moved = {name: start[name] - value.detach() for name, value in distiller.named_parameters()}
    return {"total": row["total"], "terms": row["terms"], "gradient": moved}


def process(rank: int, world: int, port: int, folder: Path, parts: tuple[int, ...]) -> None:
    """One of the processes that share the images; the first writes `PARTS-LABELS.pt`."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # As under torchrun.
        "TORCHELASTIC_RUN_ID": "test",
        "GROUP_RANK": "0",
    }
    fabric = Fabric(accelerator="cpu", strategy=DDPStrategy(), devices=world, precision="64-true")
    fabric.launch()
    for number in parts:
        for labels in ("data", "teacher", "both"):
            result = step(fabric, folder / "run", number, labels)
            if fabric.is_global_zero:
                torch.save(result, folder / f"{number}-{labels}.pt")
