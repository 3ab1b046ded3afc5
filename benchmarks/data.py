"""Time to load a training sample, beside pipelines of torchvision and OpenCV, interleaved in one run.

    python benchmarks/data.py --name cityscapes --data data/samples/cityscapes --out benchmarks/results/data.json
    python benchmarks/data.py --name voc --data data/samples/voc --split val --crop 320 320

Every case opens image and mask, takes a random crop at a random scale, flips half of them, and gives a float
image in 0..1 and a long label on the CPU, in one process and one thread. The random numbers are its own. The
mask's ids are mapped to classes in ours alone. OpenCV takes part where it is installed, and so does the extra
`fast`, which decodes plain PNG and JPEG files.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from segdistill.data import build_dataset
from segdistill.data.reading import plain
from segdistill.data.transforms import Augment
from segdistill.run.environment import describe_environment

SCALE = (0.5, 2.0)
Case = Callable[[int], tuple[Tensor, Tensor]]


def ours(dataset: Any, crop: tuple[int, int]) -> Case:
    """A data set of this package."""
    augment = Augment(crop, SCALE)
    generator = torch.Generator().manual_seed(0)
    return lambda index: augment(*dataset.read(index), generator)


def without_extra(case: Case) -> Case:
    """A case as it is where the extra `fast` is not installed."""

    def sample(index: int) -> tuple[Tensor, Tensor]:
        with (
            patch.object(plain, "_decoder", lambda: None),
            patch.object(plain, "jpeg_decoder", lambda: None),
        ):
            return case(index)

    return sample


def _box(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """A random box inside the image that the crop shows at a random scale."""
    scale = random.uniform(max(SCALE[0], crop[0] / height, crop[1] / width), SCALE[1])
    rows, columns = round(crop[0] / scale), round(crop[1] / scale)
    return random.randint(0, height - rows), random.randint(0, width - columns), rows, columns


def torchvision(pairs: list[Any], crop: tuple[int, int]) -> Case:
    """Pillow and torchvision's transforms v2."""
    bilinear, nearest = v2.InterpolationMode.BILINEAR, v2.InterpolationMode.NEAREST

    def sample(index: int) -> tuple[Tensor, Tensor]:
        pair = pairs[index]
        image = tv.pil_to_tensor(Image.open(pair.image).convert("RGB"))
        label = tv.pil_to_tensor(Image.open(pair.mask))
        box = _box(*image.shape[-2:], crop)
        image = tv.resized_crop(image, *box, crop, bilinear, antialias=True)
        label = tv.resized_crop(label, *box, crop, nearest)
        if random.random() < 0.5:
            image, label = tv.horizontal_flip(image), tv.horizontal_flip(label)
        return tv.to_dtype(image, torch.float32, scale=True), label[0].long()

    return sample


def opencv(pairs: list[Any], crop: tuple[int, int]) -> Case | None:
    """OpenCV, as albumentations calls it; None where it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(1)

    def sample(index: int) -> tuple[Tensor, Tensor]:
        pair = pairs[index]
        image = cv2.cvtColor(cv2.imread(str(pair.image)), cv2.COLOR_BGR2RGB)
        label = cv2.imread(str(pair.mask), cv2.IMREAD_UNCHANGED)
        top, left, rows, columns = _box(*image.shape[:2], crop)
        inside = slice(top, top + rows), slice(left, left + columns)
        image = cv2.resize(image[inside], crop[::-1], interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label[inside], crop[::-1], interpolation=cv2.INTER_NEAREST)
        if random.random() < 0.5:
            image, label = (
                np.ascontiguousarray(image[:, ::-1]),
                np.ascontiguousarray(label[:, ::-1]),
            )
        tensor = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return tensor.float().div_(255), torch.from_numpy(label).long()

    return sample


def measured(
    cases: dict[str, Case], samples: int, rounds: int, crop: tuple[int, int]
) -> dict[str, list[float]]:
    """Seconds per sample and round; the cases take turns, and a round before the first is not timed."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            began = time.perf_counter()
            for index in range(samples):
                image, label = case(index)
                assert image.shape[-2:] == label.shape == crop
            if number:
                times[name].append((time.perf_counter() - began) / samples)
    return times


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the ratios to torchvision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="cityscapes", help="data set of pairs of files")
    parser.add_argument("--data", required=True, help="its folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--crop", type=int, nargs=2, default=(512, 1024))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    crop = (options.crop[0], options.crop[1])
    torch.set_num_threads(1)
    random.seed(0)
    with TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder

        def opened(cache: Any) -> Any:
            return build_dataset(options.name, options.data, options.split, cache=cache)

        dataset = opened(False)
        found = {
            "torchvision": torchvision(dataset.pairs, crop),
            "opencv": opencv(dataset.pairs, crop),
            "segdistill": without_extra(ours(dataset, crop)),
            "segdistill[fast]": ours(dataset, crop) if find_spec("imagecodecs") else None,
            "segdistill, cache: true": ours(opened(True), crop),
            "segdistill, cache: disk": ours(opened("disk"), crop),
        }
        cases = {name: case for name, case in found.items() if case is not None}
        times = measured(cases, len(dataset), options.rounds, crop)
        sizes = sorted({tuple(dataset.read(index)[1].shape) for index in range(len(dataset))})
    base = times["torchvision"]
    rows = {
        name: {
            "milliseconds": 1000 * statistics.median(found),
            "torchvision_by_this": statistics.median(
                b / one for b, one in zip(base, found, strict=True)
            ),
        }
        for name, found in times.items()
    }
    for name, row in rows.items():
        print(f"{name:26s} {row['milliseconds']:8.1f} ms  {row['torchvision_by_this']:6.2f} ×")
    if options.out:
        command = f"python benchmarks/data.py --name {options.name} --data {options.data}"
        result = {
            "command": f"{command} --split {options.split} --crop {crop[0]} {crop[1]} "
            f"--rounds {options.rounds}",
            "samples": len(dataset),
            "sizes": sizes,
            "crop": crop,
            "cases": rows,
            "environment": describe_environment(torch.device("cpu")),
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
