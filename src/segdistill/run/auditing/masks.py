"""Reading every mask before a training: a bad one must not surface after the last step."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from PIL import Image

from segdistill.activity import get_on
from segdistill.data.channels import ARRAY_SUFFIX
from segdistill.data.dataset import Pair, PairDataset, SegmentationDataset
from segdistill.data.files import read_mask
from segdistill.data.orientation import ImageGeometry, orientation_tag
from segdistill.data.samples import check_label, read_sample
from segdistill.run.auditing.data_audit import by_cause
from segdistill.run.identity.digests import known_fact, remember_fact

_AHEAD = 256


def check_masks(
    dataset: Any, digest: str | None = None, progress: Callable[[int, int], None] | None = None
) -> None:
    """Read every mask of a split and refuse those that a training or an evaluation would stop at.

    Masks of files are read in parallel, images only up to their size. What passed is remembered by the
    data's digest, so that the next training on the same bytes reads nothing. Of a data set that is neither
    files nor ours every sample is read.

    Args:
        dataset: The split.
        digest: Digest of its content (`data_digest`); None: nothing is remembered.
        progress: Called with (done, total) after each mask.

    Raises:
        ValueError: Masks cannot be read, hold undeclared ids or have another size than their image; one
            line, with the files of each cause.
    """
    fact = f"masks {digest}"
    if digest is not None and known_fact(fact):
        return
    if isinstance(dataset, PairDataset):
        faults = list(_faults(dataset, progress))
        if faults:
            raise ValueError("; ".join(by_cause(faults)))
    elif not isinstance(dataset, SegmentationDataset):
        _check_samples(dataset, progress)
    if digest is not None:
        remember_fact(fact)


def _faults(dataset: PairDataset, progress: Callable[[int, int], None] | None) -> Iterator[str]:
    pairs = [pair for pair in dataset.pairs if pair.mask is not None]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        done = 0
        # In chunks, since `map` submits all its work at once.
        for start in range(0, len(pairs), _AHEAD):
            part = pairs[start : start + _AHEAD]
            for pair, fault in zip(part, pool.map(partial(_fault, dataset), part), strict=True):
                done += 1
                get_on(str(pair.mask))
                if progress is not None:
                    progress(done, len(pairs))
                if fault:
                    yield fault


def _fault(dataset: PairDataset, pair: Pair) -> str:
    """What is wrong with a pair's mask; "" where nothing is."""
    assert pair.mask is not None
    try:
        geometry = _geometry(pair)
        mask = read_mask(pair.mask, dataset.label_map, geometry, dataset.orientation)
    except (ValueError, OSError) as error:
        return str(error)
    size = (mask.shape[1], mask.shape[0])
    if geometry is None or size == geometry.size:
        return ""
    (width, height), (own_width, own_height) = geometry.size, size
    return (
        f"{pair.mask}: the mask is {own_width}x{own_height}; expected {width}x{height}, the size of "
        f"{pair.image}. Check the pairing, or export the mask again"
    )


def _geometry(pair: Pair) -> ImageGeometry | None:
    """The upright size of a pair's image, from its header; None where only reading it tells."""
    if pair.image.suffix.lower() == ARRAY_SUFFIX:
        return None
    try:
        with Image.open(pair.image) as image:
            tag = orientation_tag(image)
            turned = tag in (5, 6, 7, 8)
            size = (image.size[1], image.size[0]) if turned else image.size
    except Exception as error:
        # Pillow's own classes of errors are many; the file is named once more when it is read.
        raise ValueError(f"{pair.image}: cannot read this image ({error})") from None
    return ImageGeometry(pair.image, tag, size)


def _check_samples(dataset: Any, progress: Callable[[int, int], None] | None) -> None:
    classes = getattr(dataset, "num_classes", None)
    for index in range(len(dataset)):
        _, label, name = read_sample(dataset, index)
        check_label(label, classes if isinstance(classes, int) else None, name)
        get_on(name)
        if progress is not None:
            progress(index + 1, len(dataset))
