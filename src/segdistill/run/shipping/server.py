"""Masks for the test server of a benchmark: its ids, its file names, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from segdistill.data.dataset import SegmentationDataset
from segdistill.run.evaluation import Protocol, evaluating, segment
from segdistill.run.folder import output_folder
from segdistill.run.lock import writing


def predict_for_server(
    model: nn.Module,
    dataset: SegmentationDataset,
    out: str | Path,
    protocol: Protocol | None = None,
    *,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Segment a data set, and write masks as its benchmark's server takes them.

    One 8-bit grey PNG an image, of the image's own size, with the ids of the original masks
    (Cityscapes: label ids, not train ids) under the name that the server looks for
    (`<city>_<sequence>_<frame>_pred_labelIds.png`). Images are shown to the network as `evaluate`
    shows them, so that masks of a labelled split score what `evaluate` says.

    Args:
        model: Network with the model contract.
        dataset: One that knows its server (`server_ids`): cityscapes, voc or ade20k.
        out: Folder to write to; made where it does not exist.
        protocol: How images are shown; None: as they are.
        device: Where to run; the network is moved there.
        progress: Called with (images done, images to do) after each image.

    Returns:
        The masks, in the order of the data set.

    Raises:
        ValueError: No server is known for the data set, or `out` cannot be written to.
    """
    ids = getattr(dataset, "server_ids", ())
    if not ids:
        raise ValueError(
            f"no test server is known for {type(dataset).__name__}, only for cityscapes, voc and "
            "ade20k; without --server, predict writes masks of class numbers"
        )
    folder = output_folder(out)
    model.to(device)
    to_server = torch.tensor(ids, dtype=torch.uint8)
    written = []
    with writing(folder), evaluating(model):
        for index, name in enumerate(dataset.names):
            sample = {"image": dataset.read(index)[0]}
            labels = segment(model, sample, protocol or Protocol(), len(ids)).cpu()
            path = folder / f"{name}{dataset.server_ending}"
            Image.fromarray(to_server[labels].numpy()).save(path)
            written.append(path)
            if progress is not None:
                progress(index + 1, len(dataset))
    return written
