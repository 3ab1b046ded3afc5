"""Parity once more, as a user meets it: image files through the shipped script."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from PIL import Image
from torch import Tensor, nn

from segdistill.activity import doing
from segdistill.data.channels import in_unit_range
from segdistill.data.files import IMAGE_SUFFIXES, read_image
from segdistill.data.samples import read_sample
from segdistill.run.evaluation import Evaluation, Protocol, evaluating, segment
from segdistill.run.evaluation.evaluate import confusion_matrix
from segdistill.run.identity.data import pairs_of

_log = logging.getLogger(__name__)

IMAGES = 8
_EXACT = 1e-4
_ROUNDED = 0.5 / 255 + _EXACT
"""Floating-point images written with 8 bits differ by half a grey level."""


@dataclass
class _Case:
    """An evaluation sample, and the pixels that its image file holds."""

    image: Float[Tensor, "3 h w"]
    label: Integer[Tensor, "h w"]
    file: Path
    stored: Float[Tensor, "3 h w"]
    own: bool


def parity_from_files(
    script: Path,
    model: nn.Module,
    classes: int,
    protocol: Protocol,
    val_set: Any,
    threshold: float,
) -> dict[str, Any]:
    """Segment image files with the shipped script, and compare with what evaluation predicts.

    The files are those of the data set, where each sample has one; otherwise its images are written as PNG.

    Args:
        script: `infer.py`, beside the exported file.
        model: The network.
        classes: How many it predicts.
        protocol: How evaluation shows it the images.
        val_set: The evaluation split.
        threshold: Fraction of the pixels that must get the same class.

    Returns:
        `images`, `own_files` (of the data set), `pixel_difference` (largest, between data set and files, in 0..1),
        `label_agreement` with evaluation, `script_agreement` (with the network on the files' pixels), `miou`
        of both on these images (None without labels), and `passed`. Only agreement lost by rounding to 8 bits
        passes below the threshold.

    Raises:
        ValueError: The script fails.
    """
    places = [n * len(val_set) // IMAGES for n in range(IMAGES)]
    with doing("running infer.py on image files"), TemporaryDirectory() as folder:
        cases = list(_cases(val_set, sorted(set(places)), Path(folder)))
        masks = _infer(script, [case.file for case in cases], Path(folder))
    with evaluating(model):
        evaluated = [
            segment(model, {"image": c.image, "label": c.label}, protocol).cpu() for c in cases
        ]
        same_pixels = [
            segment(model, {"image": c.stored}, protocol).cpu() if _gap(c) else seen
            for c, seen in zip(cases, evaluated, strict=True)
        ]
    gap = max(map(_gap, cases))
    agreement, of_script = _agreement(masks, evaluated), _agreement(masks, same_pixels)
    return {
        "images": len(cases),
        "own_files": sum(case.own for case in cases),
        "pixel_difference": gap,
        "label_agreement": agreement,
        "script_agreement": of_script,
        "miou": {
            "pytorch": _miou(cases, evaluated, classes),
            "infer.py": _miou(cases, masks, classes),
        },
        "passed": of_script >= threshold and (agreement >= threshold or _EXACT < gap <= _ROUNDED),
    }


def report_files(script: Path, files: dict[str, Any], threshold: float) -> None:
    """Log how the script's masks compare with what evaluation predicts.

    Args:
        script: `infer.py`, beside the exported file.
        files: What `parity_from_files` returned.
        threshold: As there.

    Raises:
        ValueError: They differ, and not by rounding.
    """
    if not files["passed"]:
        raise ValueError(_difference(script, files, threshold))
    if files["label_agreement"] < threshold:
        _log.warning("%s", _difference(script, files, threshold))
        return
    percent = 100 * files["label_agreement"]
    _log.info(
        "%s: %.3f %% of the pixels of %d image files get the class that evaluation gives them",
        script,
        percent,
        files["images"],
    )


def _difference(script: Path, files: dict[str, Any], threshold: float) -> str:
    """How the masks of the script differ from what evaluation predicts, and what to do."""
    measured = [files["miou"][key] for key in ("infer.py", "pytorch")]
    miou = (
        ""
        if None in measured
        else " ({:.1f} mIoU, {:.1f} in evaluation)".format(*(100 * value for value in measured))
    )
    start = (
        f"{script} agrees with evaluation on {100 * files['label_agreement']:.2f} % of the pixels of "
        f"{files['images']} image files{miou}; expected at least {100 * threshold} %. "
    )
    gap = files["pixel_difference"]
    if gap <= _EXACT or files["script_agreement"] < threshold:
        return f"{start}Do not ship it; see parity.json"
    if gap <= _ROUNDED:
        return (
            f"{start}The data set's images are rounded to 8 bits in files. Evaluate on 8-bit images"
        )
    return (
        f"{start}The data set's pixels differ from those of the files by up to {gap:.2g}. Retrain on RGB in "
        "0..1 as files hold it, and declare the normalisation of the network (input)"
    )


def _cases(val_set: Any, places: list[int], folder: Path) -> Iterator[_Case]:
    _, pairs = pairs_of(val_set)
    for place in places:
        image, label, name = read_sample(val_set, place)
        image = in_unit_range(image)
        # Another order, or another size, and the file is not this sample's.
        pair = pairs[place] if len(pairs) == len(val_set) else None
        source = pair.image if pair is not None and pair.name == name else None
        if source is not None and source.suffix.lower() in IMAGE_SUFFIXES:
            file = folder / f"{place}{source.suffix}"
            shutil.copyfile(source, file)
            with suppress(ValueError):
                stored = in_unit_range(read_image(file))
                if stored.shape == image.shape:
                    yield _Case(image, label, file, stored, own=True)
                    continue
        file = folder / f"{place}.png"
        pixels = (255 * image.nan_to_num().clamp(0, 1)).round().byte()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
        yield _Case(image, label, file, in_unit_range(pixels), own=False)


def _infer(script: Path, files: list[Path], folder: Path) -> list[Tensor]:
    """The masks that the script writes to a folder."""
    called = [sys.executable, str(script.resolve()), *(file.name for file in files)]
    done = subprocess.run(called, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ValueError(
            f"{script} fails on images of the evaluation split ({cause:.300}). Do not ship it"
        )
    return [
        torch.from_numpy(np.array(Image.open(folder / f"{file.stem}_mask.png"))).long()
        for file in files
    ]


def _gap(case: _Case) -> float:
    gap = float((case.image - case.stored).abs().nan_to_num(torch.inf).max())
    return gap if gap > _EXACT else 0.0


def _agreement(masks: list[Tensor], others: list[Tensor]) -> float:
    same = sum(int((a == b).sum()) for a, b in zip(masks, others, strict=True))
    return same / sum(mask.numel() for mask in masks)


def _miou(cases: list[_Case], masks: list[Tensor], classes: int) -> float | None:
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for case, mask in zip(cases, masks, strict=True):
        confusion += confusion_matrix(case.label.long(), mask, classes)
    return Evaluation.from_confusion(confusion).miou if confusion.any() else None
