"""Segment images: a label mask and a colour overlay for each image file."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from segdistill.data.channels import ARRAY_SUFFIX, in_unit_range, visible
from segdistill.data.dataset import generated_palette, list_names
from segdistill.data.files import IMAGE_SUFFIXES, read_image
from segdistill.data.reading.listing import tell_unread, unread_pictures, visible_files
from segdistill.models.contract import device_of
from segdistill.run.evaluation import Protocol, Size, evaluating, in_channels, segment
from segdistill.run.folder import RunFolder, output_folder
from segdistill.run.lock import writing
from segdistill.run.networks import load_run_model
from segdistill.run.shipping.exported import exported_file, load_exported
from segdistill.run.shipping.overwriting.marks import refuse_others, write_mask, write_overlay
from segdistill.trust import trusting

LEGEND = "classes.json"
READ_AS_STORED = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
Inputs = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class Predictor:
    """A network with everything needed to predict and to draw the result.

    Attributes:
        network: Network with the model contract.
        classes: Names of the classes.
        palette: A colour (red, green, blue in 0..255) for each class.
        size: Height and width that images are resized to first; None: not resized.
        protocol: Further values of `Protocol`; empty for an exported network.
    """

    network: nn.Module
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    size: Size | None
    protocol: Mapping[str, Any] = field(default_factory=dict)


def load_predictor(path: str | Path, weights: str = "model", trust: bool = False) -> Predictor:
    """Load a run, a folder written by `export`, or the .onnx file in such a folder.

    Args:
        path: The run, the folder or the file.
        weights: Weights of a run: `model` for the last, `best` for the best on validation.
        trust: Import modules of somebody's code that a run names, now and from now on (SECURITY.md).

    Raises:
        FileNotFoundError: None of these is at this path, or the run is not finished.
        ValueError: The file cannot be read or is not the one that was exported, or `weights` is `best` for
            an exported network.
    """
    exported = exported_file(path)
    if exported is None:
        run = RunFolder(path)
        info = run.model_info()
        palette = info["palette"] or generated_palette(len(info["classes"]))
        protocol = Protocol.of(run.recipe())
        views = {key: getattr(protocol, key) for key in ("window", "overlap", "flip", "scales")}
        with trusting(trust):
            model = load_run_model(run, weights)
        return Predictor(model, info["classes"], palette, protocol.size, views)
    if weights != "model":
        raise ValueError(f"weights is {weights!r}; {path} holds only one network. Omit --weights")
    network = load_exported(exported)
    return Predictor(network, network.info.classes, network.info.palette, network.size)


def predict(
    model: nn.Module,
    inputs: Inputs,
    out: str | Path,
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    size: Size | None = None,
    window: Size | None = None,
    overlap: float = 1 / 3,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    device: str | torch.device | None = None,
    precision: str = "32",
    alpha: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Segment images: write a mask of class ids and a colour overlay for each.

    Writes `<stem>.png` (the mask), `<stem>_overlay.jpg`, and one `classes.json` (names, colours).
    The masks are 8-bit palette images: their values are class ids, and viewers show the classes'
    colours. Files are read as in training (`segdistill.data.files.read_image`): upright, so that mask
    and overlay have the size that a viewer shows. Grey and palette images are converted to RGB, and
    transparency is dropped. For networks that do not read three channels, channels are read as stored,
    also from `.npy` files; overlays show the first three channels, or the first in grey. If two
    images have the same stem, the second is written as `<stem>-2`. Masks and overlays carry a mark, and only
    what `predict` wrote and nobody changed is replaced.

    All images are read before the first is predicted, so that a bad file is reported at once.

    Args:
        model: Network with the model contract.
        inputs: Image files, and folders of image files, read in the order of their names (without
            subfolders).
        out: Folder to write to; created if missing.
        classes: Names of the classes.
        palette: A colour (red, green, blue in 0..255) for each class.
        size, window, overlap, flip, scales, precision: See `Protocol`.
        device: Device to run on; the network is moved there. None: the network's.
        alpha: Opacity of the class colour in the overlay, 0 to 1.
        progress: Called with (images done, images to do) after each image.

    Returns:
        The written files.

    Raises:
        FileNotFoundError: An input does not exist, or a folder holds no image.
        ValueError: An image cannot be read or would be overwritten, or a file that `predict` did not write;
            `out` cannot be written to, or the numbers of classes, colours and logit channels differ.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a fraction in [0, 1]")
    if len(classes) != len(palette) or len(classes) > 256:
        raise ValueError(
            f"palette has {len(palette)} colours for {len(classes)} classes; expected one per class, at most 256"
        )
    channels = in_channels(model)
    protocol = Protocol(size, window, overlap, flip, tuple(scales), precision=precision)
    paths = find_images(inputs, IMAGE_SUFFIXES if channels == 3 else READ_AS_STORED)
    _check_readable(paths, channels)
    folder = output_folder(out)
    targets = _targets(paths, folder)
    model.to(device_of(model) if device is None else device)
    colours = torch.tensor([list(colour) for colour in palette], dtype=torch.float32)
    written = []
    with writing(folder), evaluating(model):
        for done, (path, (mask_path, overlay_path)) in enumerate(
            zip(paths, targets, strict=True), 1
        ):
            image = read_image(path, channels)
            labels = segment(model, {"image": image}, protocol, len(classes)).cpu()
            save_mask(labels, palette, mask_path)
            # Rounded to integers first, since the blend is rounded, too.
            photograph = (255 * visible(in_unit_range(image))).round().permute(1, 2, 0)
            overlay = (1 - alpha) * photograph + alpha * colours[labels]
            write_overlay(Image.fromarray(overlay.round().byte().numpy()), overlay_path)
            written += [mask_path, overlay_path]
            if progress is not None:
                progress(done, len(paths))
        write_legend(classes, palette, folder / LEGEND)
    return [*written, folder / LEGEND]


def find_images(inputs: Inputs, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List image files without duplicates: the files named, and those in the folders named.

    Args:
        inputs: Files and folders. Hidden files in a folder are left out.
        suffixes: Suffixes of the files to read from folders.

    Raises:
        FileNotFoundError: An input does not exist, a folder holds no image, or `inputs` is empty.
        ValueError: A folder holds a pipe, a socket or a broken link with such a suffix.
    """
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    images: dict[Path, Path] = {}
    for path in map(Path, inputs):
        if path.is_dir():
            inside = [
                Path(file) for file in visible_files(path, suffixes, any_case=True, deep=False)
            ]
            if not inside:
                unread = unread_pictures(path, deep=False)
                raise FileNotFoundError(
                    f"no image in {path}; expected files that end in {', '.join(suffixes)}"
                    + (f". {unread}" if unread else "")
                )
            tell_unread(path, deep=False)
        elif path.exists():  # what is no regular file is refused on reading
            inside = [path]
        else:
            raise FileNotFoundError(f"no image or folder at {path}. Check the path")
        for file in inside:
            images.setdefault(file.resolve(), file)
    if not images:
        raise FileNotFoundError("no images to predict. Name an image file or a folder of images")
    return list(images.values())


def save_mask(labels: Tensor, palette: Sequence[Sequence[int]], path: Path) -> None:
    """Write class ids `h w` as an 8-bit palette PNG.

    Args:
        labels: Class ids, 0 to 255.
        palette: Colour of each id, starting at 0.
        path: File to write.
    """
    mask = Image.fromarray(labels.to(torch.uint8).numpy())
    mask.putpalette([int(value) for colour in palette for value in colour])
    write_mask(mask, path)


def _check_readable(paths: Sequence[Path], channels: int) -> None:
    bad = []
    for path in paths:
        try:
            read_image(path, channels)
        except (ValueError, OSError) as error:
            bad.append((path, error))
    if len(bad) == 1:
        raise ValueError(str(bad[0][1]))
    if bad:
        names = list_names([path.name for path, _ in bad])
        raise ValueError(f"{len(bad)} of {len(paths)} images cannot be read ({names}); {bad[0][1]}")


def _targets(paths: Sequence[Path], folder: Path) -> list[tuple[Path, Path]]:
    """Mask and overlay file of each image, all distinct, and none of them an input or somebody else's file."""
    # On case-insensitive file systems A.png and a.png are one file.
    taken: set[str] = set()
    stems = []
    later = {path.stem.lower() for path in paths}
    for path in paths:
        stem, number = path.stem, 1
        while stem.lower() in taken or (number > 1 and stem.lower() in later):
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    targets = [(folder / f"{stem}.png", folder / f"{stem}_overlay.jpg") for stem in stems]
    inputs = {path.resolve() for path in paths}
    for path in (path for pair in targets for path in pair):
        if path.resolve() in inputs:
            raise ValueError(
                f"{path} is an input and would be overwritten. Write to another folder"
            )
    refuse_others([*(path for pair in targets for path in pair), folder / LEGEND])
    return targets


def write_legend(classes: Sequence[str], palette: Sequence[Sequence[int]], path: Path) -> None:
    """Write the class of each mask id: `[{"id", "name", "colour"}, ...]`."""
    legend: list[dict[str, Any]] = [
        {"id": index, "name": name, "colour": [int(value) for value in colour]}
        for index, (name, colour) in enumerate(zip(classes, palette, strict=True))
    ]
    path.write_text(json.dumps(legend, indent=1) + "\n")
