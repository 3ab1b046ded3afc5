"""What every network of this package promises to the rooms above."""

from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from segdistill.geometry import Cells, Size, declared_cells
from segdistill.models.input import InputNormalisation


class SegmentationModel(nn.Module):
    """Base of all networks: `forward(images)` takes RGB in 0..1, gives logits at the head's stride.

    Attributes:
        num_classes: Channels of the logits.
        taps: Name -> where the tensor is read: "" is the output of the network itself, "path" the
            output of that submodule, "path:input" its first input. At least `logits` and `features`
            (the tensor before the classifier and before its dropout); `aux` where there is an
            auxiliary head; `logits_distilled` where a student's logits meet its teacher's elsewhere
            than at its output. No operation changes a tapped tensor in place.
        input: The normalisation; the first operation of `forward`.
        align_corners: How the logits are to be resized bilinearly to the label's size. Of no effect
            on logits of the image's size: those go back as the image was resized, by half pixels.
        cells: Tap -> (stride, offset): cell i of the tapped map is centred on pixel `offset + stride · i`,
            where convolutions settle it. Taps that are not named lie where `align_corners` puts maps
            of their size, and so do logits that it puts more than a pixel elsewhere.
        multiple_of: Height and width should be multiples of this (1: any). Evaluation and export pad
            to it; the networks of this package take other sizes too, and pad inside.
        spec: `{"name", "num_classes", "options"}` in plain values; `build_model(spec["name"],
            spec["num_classes"], **spec["options"])` makes the same network with fresh weights. None
            where the network was not made by name.
        released_keys: Patterns and replacements that lead from the names in its authors' files to the
            network's own; empty where there are no such files. See `load_weights`.
        weights_report: What loading the encoder's weights from a file found; None without a file.
    """

    num_classes: int
    taps: dict[str, str]
    input: InputNormalisation
    align_corners: bool
    cells: Mapping[str, tuple[float, float]] = MappingProxyType({})
    multiple_of: int
    spec: dict[str, Any] | None = None
    released_keys: tuple[tuple[str, str], ...] = ()
    weights_report: Any = None

    def released_values(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What its authors' files mean here, still by their names; as they are, unless a network differs."""
        return dict(state)

    def cells_of(self, tap: str, size: Size, image: Size) -> Cells:
        """Where the cells of a tapped map lie.

        Args:
            tap: One of `taps`.
            size: Height and width of the map.
            image: Height and width of the image that it was made from.
        """
        return declared_cells(self, tap, size, image)

    @property
    def in_channels(self) -> int:
        """Channels of the images that it reads."""
        return len(self.input.spec["mean"])

    @property
    def shipped(self) -> nn.Module:
        """The module whose weights are saved and exported: itself, unless it holds a user's own."""
        return self


def network(model: nn.Module) -> nn.Module:
    """What `wrap` and `torch.compile` were given, or the model itself: this is what ships."""
    model = _uncompiled(model)
    return _uncompiled(model.shipped) if isinstance(model, SegmentationModel) else model


def encoders(model: nn.Module) -> list[nn.Module]:
    """The parts of a network that weights from elsewhere usually fill; empty where none can be told.

    They are told by name, in what `wrap` and `torch.compile` were given: `encoder`, `backbone`, or what a
    network of transformers names as its base. A module that holds a single one with parameters, and so
    only wraps it, is looked into.
    """
    model = network(model)
    # dict, not set: always in the same order.
    names = dict.fromkeys(("encoder", "backbone", getattr(model, "base_model_prefix", "")))
    found = [part for name in names if isinstance(part := getattr(model, name, None), nn.Module)]
    inside = [child for child in model.children() if any(True for _ in child.parameters())]
    if found or len(inside) != 1:
        return found
    return encoders(inside[0])


def _uncompiled(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given."""
    original: nn.Module = getattr(model, "_orig_mod", model)
    return original


def device_of(model: nn.Module) -> torch.device:
    """Where a network computes: the device of its parameters, or of its buffers; without either the CPU."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def check_training_batch(model: nn.Module, images: Tensor) -> None:
    """Refuses one image in training mode, where it is cheap to say why.

    Raises:
        ValueError: torch itself would fail deep in a batch norm that sees a single 1×1 map.
    """
    if model.training and images.shape[0] < 2:
        raise ValueError(
            "the batch holds 1 image; expected 2 or more in training, since a globally pooled 1×1 map cannot be "
            "batch-normalised on its own. Raise the batch (per process), or call .eval()"
        )


def level_taps(levels: int) -> dict[str, str]:
    """Taps `layer1`.. for a network that holds its encoder as `encoder`."""
    return {f"layer{i}": f"encoder.layer{i}" for i in range(1, levels + 1)}


def convolved_cells(
    taps: Mapping[str, str], reductions: Sequence[int]
) -> dict[str, tuple[float, float]]:
    """`cells` for a head that keeps the grid of its encoder, whose odd kernels centre cell i on `stride · i`.

    Args:
        taps: Of the network; `layer1`.. are the encoder's last levels, all others on its deepest.
        reductions: Strides of the encoder's levels.
    """
    levels = sum(tap.startswith("layer") for tap in taps)
    strides = dict(zip(level_taps(levels), reductions[-levels:], strict=True))
    return {tap: (strides.get(tap, reductions[-1]), 0) for tap in taps}


def inner_taps(taps: Mapping[str, str]) -> dict[str, str]:
    """Taps of a network as those of another that holds it as `module`."""
    return {
        name: f"module.{path}" if path and path[0] != ":" else f"module{path}"
        for name, path in taps.items()
    }


def aux_is_wanted(model: nn.Module, aux: nn.Module) -> bool:
    """Whether the auxiliary head is to run: in training, or where a hook (an open tap) is on it."""
    return model.training or bool(aux._forward_hooks)
