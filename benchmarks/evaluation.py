"""Time of an evaluation beside the network's forward passes alone, interleaved in one run.

The evaluation is that of `segdistill evaluate`: normalisation, forward pass, logits resized to the labels'
size strip by strip, the largest, the confusion matrix. Images and labels are in memory, so no file is read.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py --out benchmarks/results/evaluation.json
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.data import Dataset

from segdistill.models import build_model
from segdistill.run.environment import describe_environment
from segdistill.run.evaluation.evaluate import measure
from segdistill.run.evaluation.protocol import Protocol, evaluating

CLASSES = (19, 150)


class Drawn(Dataset[dict[str, Any]]):
    """Noise with labels."""

    def __init__(self, count: int, size: int, classes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.classes = [f"class {k}" for k in range(classes)]
        self.images = torch.randint(
            0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator
        )
        self.labels = torch.randint(0, classes, (count, size, size), generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": self.labels[index], "name": str(index)}


def measured(name: str, classes: int, size: int, count: int, repeats: int) -> dict[str, Any]:
    """Seconds of both for all images, turn by turn, and the median share of the forward passes."""
    torch.manual_seed(0)
    network, data = build_model(name, classes).eval(), Drawn(count, size, classes)

    def forward() -> None:
        with evaluating(network):
            for image in data.images:
                network(image[None].float() / 255)

    cases: dict[str, Callable[[], object]] = {
        "forward passes": forward,
        "evaluation": lambda: measure(network, data, Protocol()),
    }
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for repeat in range(repeats + 1):
        for case, call in cases.items():
            begun = time.perf_counter()
            call()
            if repeat:
                seconds[case].append(time.perf_counter() - begun)
    share = median(f / e for f, e in zip(*seconds.values(), strict=True))
    return {"classes": classes, "rate_of_forward_alone": share, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="pspnet_r18")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for classes in CLASSES:
        rows.append(
            measured(options.network, classes, options.size, options.images, options.repeats)
        )
        share = rows[-1]["rate_of_forward_alone"]
        print(f"{classes:4d} classes: {share:.2f} of the rate of forward passes alone", flush=True)
    result = {
        "command": f"python benchmarks/evaluation.py --network {options.network} --size {options.size} "
        f"--images {options.images} --repeats {options.repeats}",
        "rows": rows,
        "peak_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "environment": describe_environment(torch.device("cpu")),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
