"""Encoders from timm: its convolutional networks at a chosen output stride, as lists of levels."""

from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.files.backbone_keys import recognise, renamed
from segdistill.models.files.weights import LoadReport, load_state, read_weights
from segdistill.models.input import INPUTS, InputNormalisation, InputSetting, make_input, spread


class TimmEncoder(nn.Module):
    """A timm network without its classifier, giving its feature levels from fine to coarse.

    The deepest (at most four) levels pass through `layer1`..`layer4`, identities that exist to be
    tapped: the names hold for every encoder, however timm calls its modules.

    Args:
        name: timm's name, with or without a tag ("resnet18", "resnet18.a1_in1k").
        output_stride: 8, 16 or 32; strides beyond it turn into dilation.
        pretrained: Take timm's own weights (downloaded, or from its cache).
        in_channels: Of the images. timm fits its weights for RGB to another number: the first
            convolution is repeated over the channels and scaled (summed for one channel).

    Attributes:
        channels: Of each level.
        reductions: Stride of each level against the image.
        levels: How many of `layer1`.. there are.
        centred: Whether all that strides is of an odd kernel with as much padding on either side, so that
            cell i of a level is centred on pixel `stride · i`.

    Raises:
        ValueError: an unknown name, or a network that cannot give such levels.
    """

    def __init__(
        self, name: str, output_stride: int = 16, pretrained: bool = False, in_channels: int = 3
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}; expected 8, 16 or 32")
        self.name = name
        self.net = _create(name, output_stride, pretrained, in_channels)
        info: Any = self.net.feature_info
        self.channels: list[int] = info.channels()
        self.reductions: list[int] = info.reduction()
        if (
            self.reductions[-1] != output_stride
            or getattr(self.net, "output_fmt", "NCHW") != "NCHW"
        ):
            raise ValueError(
                f"timm encoder {name!r} cannot give output_stride={output_stride} (its levels "
                f"have strides {self.reductions}); take another stride, or a convolutional encoder "
                "such as 'resnet18'"
            )
        self.levels = min(4, len(self.channels))
        self.centred = all(map(_centred, self.net.modules()))
        for i in range(self.levels):
            self.add_module(f"layer{i + 1}", nn.Identity())

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        levels: list[Tensor] = self.net(x)
        first = len(levels) - self.levels
        named = [
            self.get_submodule(f"layer{i}")(level)
            for i, level in enumerate(levels[first:], start=1)
        ]
        return [*levels[:first], *named]


def build_encoder(
    name: str,
    output_stride: int,
    weights: str | None,
    input: InputSetting,
    in_channels: int = 3,
) -> tuple[TimmEncoder, InputNormalisation, LoadReport | None]:
    """An encoder, the normalisation its weights want, and the report of a file that was loaded.

    Args:
        weights: None (timm's own fresh start), "imagenet" (timm's download), or a file: timm's own
            names, or one of `segdistill.models.files.backbone_keys.LAYOUTS`.
        input: Overrides the normalisation, which otherwise follows the weights: that of the file's
            layout, else timm's mean and std for this encoder. For another number of channels than
            three, each gets the mean of theirs.
        in_channels: Of the images. A file must be of as many.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown encoder, weights that do not fit, or no download to be had.
    """
    encoder = TimmEncoder(name, output_stride, weights == "imagenet", in_channels)
    config: Any = encoder.net.pretrained_cfg
    default: dict[str, Any] = {"mean": config["mean"], "std": config["std"]}
    report = None
    if weights not in (None, "imagenet"):
        report, stated = _load_file(encoder, str(weights))
        default = INPUTS[stated] if stated else default
    setting = spread(default, in_channels) if input is None else input
    return encoder, make_input(setting, in_channels), report


def _load_file(encoder: TimmEncoder, path: str) -> tuple[LoadReport, str | None]:
    import timm

    state = read_weights(path)
    # The whole classifier, without memory, tells which names belong to what was cut off.
    with torch.device("meta"):
        whole = timm.create_model(encoder.name)
    layout = recognise(state)
    names = layout.names(whole) if layout else {}
    ours, cut_off = set(encoder.net.state_dict()), set(whole.state_dict())
    fitting, left_out = {}, []
    for key, tensor in state.items():
        target = renamed(key, names)
        # timm flattens the stages of some networks: stages.0 of the classifier is stages_0 here.
        flat = target.replace(".", "_", 1)
        if target not in ours and flat in ours:
            target = flat
        if target in cut_off and target not in ours:
            left_out.append(key)
        else:
            fitting[target] = tensor
    report = load_state(encoder.net, fitting, source=path, left_out=left_out)
    return report, layout.input(encoder.name) if layout else None


def _create(name: str, output_stride: int, pretrained: bool, in_channels: int) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3, cutoff=0.3)
        raise ValueError(
            f"no timm encoder named {name!r}; nearest: {', '.join(near) or 'none'}; "
            "timm.list_models() has them all"
        )
    # Networks without dilation refuse the argument even at their natural stride.
    options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    options |= {"features_only": True, "in_chans": in_channels}
    # Any error is the answer: what timm raises depends on the network and on the download library.
    try:
        net: nn.Module = timm.create_model(name, **options)
    except Exception as error:
        raise ValueError(
            f"timm cannot build encoder {name!r} with output_stride={output_stride} "
            f"({_first_line(error)}); take 32, or a convolutional encoder such as 'resnet18'"
        ) from error
    if not pretrained:
        return net
    try:
        net = timm.create_model(name, pretrained=True, **options)
    except Exception as error:
        raise ValueError(
            f"timm could not download the weights of {name!r} "
            f"({_first_line(error)}). Connect to the network, or give weights=PATH"
        ) from error
    return net


def _centred(layer: nn.Module) -> bool:
    """False for patches, pooling by 2×2, blurring and TensorFlow's padding, which shift what they read."""
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return type(layer).__name__ != "BlurPool2d"
    kernel, stride, padding = (_both(n) for n in (layer.kernel_size, layer.stride, layer.padding))
    dilation = _both(getattr(layer, "dilation", 1))
    return all(
        s == 1 or (k % 2 == 1 and p == d * (k // 2))
        for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)
    )


def _both(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple) else (value, value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
