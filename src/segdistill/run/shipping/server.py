"""Masks for a benchmark's test server, with its ids and file names."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from segdistill.data.dataset import SegmentationDataset
from segdistill.run.evaluation import Protocol, evaluating, segment
from segdistill.run.folder import inside, output_folder
from segdistill.run.lock import writing
from segdistill.run.shipping.overwriting.marks import refuse_others, write_mask


def predict_for_server(
    model: nn.Module,
    dataset: SegmentationDataset,
    out: str | Path,
    protocol: Protocol | None = None,
    *,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Segment a data set, and write masks in the form that its benchmark's server expects.

    One 8-bit grey PNG per image, of the image's own size, with the ids of the original masks
    (Cityscapes: label ids, not train ids) under the name that the server expects
    (`<city>_<sequence>_<frame>_pred_labelIds.png`). Images reach the network as in `evaluate`, so
    masks of a labelled split score what `evaluate` reports.

    Args:
        model: Network with the model contract.
        dataset: A data set with `server_ids`: cityscapes, voc or ade20k.
        out: Folder to write to; created if missing.
        protocol: How images are shown to the network; None: whole, at their own size.
        device: Where to run; the network is moved there.
        progress: Called with (images done, images to do) after each image.

    Returns:
        The masks, in the order of the data set.

    Raises:
        ValueError: The data set has no known server, `out` cannot be written to, a name in the data
            set leads out of it, or a file would be overwritten that `predict` did not write.
    """
    ids = getattr(dataset, "server_ids", ())
    if not ids:
        raise ValueError(
            f"the data set is {type(dataset).__name__}; expected cityscapes, voc or ade20k, whose test "
            "servers are known. Omit --server to write masks of class ids"
        )
    folder = output_folder(out)
    model.to(device)
    to_server = torch.tensor(ids, dtype=torch.uint8)
    paths = [inside(folder, f"{name}{dataset.server_ending}") for name in dataset.names]
    refuse_others(paths)
    with writing(folder), evaluating(model):
        for index, path in enumerate(paths):
            sample = {"image": dataset.read(index)[0]}
            labels = segment(model, sample, protocol or Protocol(), len(ids)).cpu()
            write_mask(Image.fromarray(to_server[labels].numpy()), path)
            if progress is not None:
                progress(index + 1, len(dataset))
    return paths
