"""A user's own network, made to keep the contract of this package."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.geometry import check_cells, declaration
from segdistill.models.contract import SegmentationModel
from segdistill.models.foreign.adapters import conventions
from segdistill.models.foreign.adapters.interface import Conventions
from segdistill.models.foreign.outputs import (
    FINAL_ACTIVATIONS,
    FinalActivation,
    as_logits,
    follow,
    logits_path,
)
from segdistill.models.input import InputNormalisation, make_input
from segdistill.names import unknown

_CONTRACT = ("num_classes", "taps", "input", "align_corners", "multiple_of")


class Wrapped(SegmentationModel):
    """Holds a plain module as `module`; made by `wrap`. What ships is `network(model)`."""

    def __init__(
        self,
        module: nn.Module,
        num_classes: int,
        taps: Mapping[str, str],
        input: InputNormalisation,
        align_corners: bool,
        multiple_of: int,
        cells: Mapping[str, tuple[float, float]],
        output: str | None = None,
        final_activation: str | None = None,
    ) -> None:
        super().__init__()
        self.input = input
        self.module = module
        self.num_classes = num_classes
        self.taps = dict(taps)
        self.align_corners, self.multiple_of = align_corners, multiple_of
        self.cells = dict(cells)
        self.output, self.final_activation = output, final_activation

    @property
    def shipped(self) -> nn.Module:
        """The module that was wrapped."""
        return self.module

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        # A traced size is a symbol, and was padded before.
        if not torch.compiler.is_compiling():
            _check_size(images, self.multiple_of)
        returned = self.module(self.input(images))
        path = logits_path(returned, self.num_classes, self.output)
        return as_logits(follow(returned, path), self.num_classes, self.final_activation)


def wrap(
    module: nn.Module,
    num_classes: int,
    taps: Mapping[str, str] | None = None,
    input: str | Mapping[str, Any] | InputNormalisation | None = None,
    align_corners: bool | None = None,
    multiple_of: int | None = None,
    cells: Mapping[str, Sequence[float]] | None = None,
    output: str | int | None = None,
    final_activation: FinalActivation | None = None,
) -> SegmentationModel:
    """Gives a plain module the attributes that distillation, evaluation and export read.

    Its output may be a tensor `b k h w`, a mapping with `out` or `logits`, an object with
    `.logits`, or a tuple or list whose first item is the logits. Of two classes it may give one logit z
    (of the second, for a sigmoid): its logits are then (0, z), whose softmax is (1 - sigmoid(z),
    sigmoid(z)), so that losses, evaluation and export see two classes.

    Args:
        module: The network. Returned as it is if it keeps the contract already.
        num_classes: Channels of its logits; 2 where it gives one logit.
        taps: Name -> path inside `module` ("" its output, "path:input" a submodule's first input).
            Without them, `features` is the input of the last `Conv2d` with `num_classes` outputs
            that is not in an auxiliary head (with one output, where two classes have none with two), or of
            the dropout registered just before it. `logits` is the output unless named. For a network
            of one of `adapters.LIBRARIES` they are added to those that its library's conventions give.
        input: What the module expects: a name of `segdistill.models.input.INPUTS`, its settings, or
            None for plain RGB in 0..1 (a module that normalises for itself).
        align_corners: How its logits were resized when it was trained; None: the library's
            convention, else False.
        multiple_of: Height and width must be multiples of this; None: the library's, else 1.
        cells: Tap -> [stride, offset] in pixels, where it is known that cell i of the tapped map is
            centred on pixel `offset + stride · i`. Other taps follow `align_corners`.
        output: Where the logits are in what the module returns, if not at the places above: a key, an
            index or an attribute; "heads.0" for nested ones. A single tensor is taken as it is, such as that
            of a module that returns several in training only.
        final_activation: What stands after the logits in the module: "softmax", "log_softmax" or
            "sigmoid", which is undone here, so that losses and the exported file read logits. "none" says
            that the module returns logits, however they look; None: nothing is said.

    Raises:
        ValueError: no default for `features` can be found, a path does not exist, `cells` names no tap
            or no stride, `final_activation` is unknown, or the module declares its own taps, input, cells
            and output.
    """
    if all(hasattr(module, name) for name in _CONTRACT):
        if any(given is not None for given in (taps, input, cells, output, final_activation)):
            raise ValueError(
                f"taps, input, cells or output is given for {type(module).__name__}, which declares its own. "
                "Change them on the module"
            )
        return module  # type: ignore[return-value]
    known = conventions(module)
    if known and known.ending and final_activation is None:
        raise ValueError(f"{known.ending}, or set final_activation")
    if final_activation not in (None, *FINAL_ACTIVATIONS):
        raise ValueError(unknown("final activation", str(final_activation), FINAL_ACTIVATIONS))
    paths = {"logits": "", **(known.taps if known else {}), **(taps or {})}
    if "features" not in paths and (taps is None or known):
        paths["features"] = _features_path(module, num_classes)
    known = known or Conventions()
    corners = known.align_corners if align_corners is None else align_corners
    for name, path in paths.items():
        _check_path(module, name, path)
    inner = {name: f"module.{path}" if path else "" for name, path in paths.items()}
    return Wrapped(
        module,
        num_classes,
        inner,
        make_input(input or "none"),
        corners,
        known.multiple_of if multiple_of is None else multiple_of,
        check_cells(declaration(module) if cells is None else cells, paths, corners),
        None if output is None else str(output),
        final_activation,
    )


def read_as(model: nn.Module) -> dict[str, str]:
    """What `wrap` was told of a network's output: `output` and `final_activation`, where they were given."""
    wrapped = next((module for module in model.modules() if isinstance(module, Wrapped)), None)
    told = {key: getattr(wrapped, key, None) for key in ("output", "final_activation")}
    return {key: value for key, value in told.items() if value is not None}


def _features_path(module: nn.Module, num_classes: int) -> str:
    """The input of the classifier, or of the dropout registered just before it."""
    classifier = path = _classifier_path(module, num_classes)
    while path:
        parent, _, name = path.rpartition(".")
        names = [child for child, _ in module.get_submodule(parent).named_children()]
        place = names.index(name)
        if place:
            before = f"{parent}.{names[place - 1]}" if parent else names[place - 1]
            layer = module.get_submodule(before)
            # One that works in place would change what was read before it.
            drops = isinstance(layer, nn.Dropout | nn.Dropout2d) and not layer.inplace
            return f"{before if drops else classifier}:input"
        path = parent
    return f"{classifier}:input"


def _classifier_path(module: nn.Module, num_classes: int) -> str:
    layers: list[tuple[str, int]] = [
        (path, layer.out_channels)
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d) and path
    ]
    found = [path for path, outputs in layers if outputs == num_classes]
    if num_classes == 2 and not found:
        found = [path for path, outputs in layers if outputs == 1]
    # torchvision registers its auxiliary classifier after the real one.
    found = [path for path in found if "aux" not in path] or found
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no Conv2d with {num_classes} outputs; expected one, the classifier. "
            "Name the tensor before the classifier, as in "
            'taps={"features": "path.of.module"}'
        )
    return found[-1]


def _check_path(module: nn.Module, name: str, path: str) -> None:
    stem = path.removesuffix(":input")
    known = [known for known, _ in module.named_modules()]
    if stem not in known:
        near = get_close_matches(stem, known, n=3, cutoff=0.3)
        raise ValueError(
            f"tap {name!r} is {path!r}; expected the path of a module in {type(module).__name__}; "
            + (f"did you mean {', '.join(map(repr, near))}?" if near else f"it has {known[1:8]}")
        )


def _check_size(images: Tensor, multiple: int) -> None:
    sides = [int(side) for side in images.shape[-2:]]
    if any(side % multiple for side in sides):
        fitting = "x".join(str(-(-side // multiple) * multiple) for side in sides)
        raise ValueError(
            f"the image is {sides[0]}x{sides[1]}; expected multiples of {multiple} for this network. "
            f"Make it {fitting} (train.crop, in training)"
        )
