"""What whole grey levels cost: the same network on images resized in 8 bits and in floating point.

Training crops and resizes 8-bit images and rounds to whole grey levels; every other command resizes in
floating point, as an exported file does. This measures a trained network on CamVid's validation images under
both, at the sizes of the recipes.

    python benchmarks/resizing.py --data data/camvid --weights data/weights/espnet_p2_q8_camvid.safetensors \
        --out benchmarks/results/resizing.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2 import functional as tv

from segdistill.data import build_dataset
from segdistill.models import build_trained
from segdistill.run.environment import describe_environment
from segdistill.run.evaluation import Evaluation, Protocol, evaluating, segment
from segdistill.run.evaluation.evaluate import confusion_matrix

SIZES = ((180, 240), (240, 320), (270, 360))


def miou(network: torch.nn.Module, dataset: Any, size: tuple[int, int], grey: bool) -> float:
    """mIoU in points, on images resized in 8 bits (`grey`) or in floating point."""
    classes = len(dataset.classes)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    protocol = Protocol() if grey else Protocol(size)
    with evaluating(network):
        for index in range(len(dataset)):
            image, label = dataset.read(index)
            # As in training: bilinear, antialiased, rounded.
            shown = tv.resize(image, list(size), antialias=True) if grey else image
            seen = segment(network, {"image": shown, "label": label}, protocol, classes)
            confusion += confusion_matrix(label, seen, classes)
    return 100 * Evaluation.from_confusion(confusion).miou


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    val = build_dataset("camvid", options.data, "val")
    network, report = build_trained("espnet", len(val.classes), options.weights)
    print(report)
    rows = []
    for size in SIZES:
        floats, grey = (miou(network, val, size, kind) for kind in (False, True))
        rows.append(
            {"size": size, "floats": floats, "grey_levels": grey, "difference": grey - floats}
        )
        print(rows[-1], flush=True)
    if options.out:
        environment = describe_environment(torch.device("cpu"))
        options.out.write_text(
            json.dumps({"rows": rows, "environment": environment}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
