"""How published backbone files name their tensors, and what those names are here.

Each layout is one entry of `LAYOUTS`: how its files are recognised, its names -> timm's, and the
input normalisation its weights were trained with where that is not the encoder's usual one.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn


def _blocks(classifier: nn.Module) -> Iterator[tuple[str, bool]]:
    """timm's name of each inverted residual in order, and whether it expands first."""
    # A network of another family has none: its keys then stay as they are, and are reported.
    stages: Any = getattr(classifier, "blocks", ())
    for s, stage in enumerate(stages):
        for b, block in enumerate(stage):
            yield f"blocks.{s}.{b}", hasattr(block, "conv_pwl")


_EXPANDING = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
_PLAIN = ("conv_dw", "bn1", "conv_pw", "bn2")


def torchvision_mobilenet_v2(classifier: nn.Module) -> dict[str, str]:
    """torchvision's `mobilenet_v2`: `features.0`, `features.1.conv`, .., `classifier.1`."""
    names = {"features.0.0": "conv_stem", "features.0.1": "bn1", "classifier.1": "classifier"}
    last = 1
    for last, (block, expands) in enumerate(_blocks(classifier), start=1):
        theirs = ("0.0", "0.1", "1.0", "1.1", "2", "3") if expands else ("0.0", "0.1", "1", "2")
        for part, ours in zip(theirs, _EXPANDING if expands else _PLAIN, strict=True):
            names[f"features.{last}.conv.{part}"] = f"{block}.{ours}"
    return names | {f"features.{last + 1}.0": "conv_head", f"features.{last + 1}.1": "bn2"}


def efficientnet_pytorch(classifier: nn.Module) -> dict[str, str]:
    """The packages `efficientnet_pytorch` and `efficientnet_lite_pytorch`: `_blocks.N._bn0`."""
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
    names |= {"_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    convolutions = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
    for n, (block, expands) in enumerate(_blocks(classifier)):
        theirs = convolutions if expands else convolutions[2:]
        for part, ours in zip(theirs, _EXPANDING if expands else _PLAIN, strict=True):
            names[f"_blocks.{n}.{part}"] = f"{block}.{ours}"
    return names


def split_deep_stem(_: nn.Module) -> dict[str, str]:
    """Deep-stem ResNets with the whole stem in `conv1`, such as timm's `resnet101s`."""
    return {
        "conv1.0": "conv1",
        "conv1.1": "bn1",
        "conv1.3": "conv2",
        "conv1.4": "bn2",
        "conv1.6": "conv3",
        "bn1": "bn3",
    }


@dataclass(frozen=True)
class Layout:
    """One way of naming.

    Attributes:
        recognises: Whether a file's keys are named this way.
        names: Module names in the file -> ours, for the classifier given.
        input: The normalisation that goes with it, from the encoder's name; None for the usual one.
    """

    recognises: Callable[[Collection[str]], bool]
    names: Callable[[nn.Module], dict[str, str]]
    input: Callable[[str], str | None] = lambda encoder: None


LAYOUTS: dict[str, Layout] = {
    "torchvision_mobilenet_v2": Layout(
        lambda keys: "features.1.conv.0.0.weight" in keys,
        torchvision_mobilenet_v2,
        lambda encoder: "imagenet",
    ),
    "efficientnet_pytorch": Layout(
        lambda keys: "_conv_stem.weight" in keys,
        efficientnet_pytorch,
        lambda encoder: "lite" if "lite" in encoder else "imagenet",
    ),
    "split_deep_stem": Layout(lambda keys: "conv1.6.weight" in keys, split_deep_stem),
}


def recognise(keys: Collection[str]) -> Layout | None:
    """The layout a file is in; None where its names are taken as they are."""
    return next((layout for layout in LAYOUTS.values() if layout.recognises(keys)), None)


def renamed(key: str, names: dict[str, str]) -> str:
    """`key` with its module renamed: "features.0.0.weight" -> "conv_stem.weight"; others stay."""
    module, _, tensor = key.rpartition(".")
    return f"{names[module]}.{tensor}" if module in names else key
