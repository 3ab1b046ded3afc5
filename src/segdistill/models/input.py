"""The first operation of every network: from RGB in 0..1 to what its weights were trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.names import unknown

INPUTS: dict[str, dict[str, Any]] = {
    # What torchvision's and most of timm's ImageNet weights expect.
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    # The PSPNets released with the distillation papers: BGR in 0..255, no division.
    "caffe_bgr": {
        "mean": (104.007, 116.669, 122.679),
        "std": (1.0, 1.0, 1.0),
        "order": "bgr",
        "scale": 255.0,
    },
    # EfficientNet-Lite as first released: (x - 127) / 128 on 0..255.
    "lite": {"mean": (127.0, 127.0, 127.0), "std": (128.0, 128.0, 128.0), "scale": 255.0},
    # ESPNet as released: BGR, statistics of the training images, then a second division by 255. Those
    # of CamVid were never printed; these are measured on its training frames.
    "espnet_cityscapes": {
        "mean": (72.3923111, 82.90893555, 73.15840149),
        "std": (45.3192215, 46.15289307, 44.91483307),
        "order": "bgr",
        "scale": 255.0,
        "post_scale": 1 / 255,
    },
    "espnet_camvid": {
        "mean": (110.33102643, 108.40886315, 105.03319369),
        "std": (72.12571015, 72.69074534, 69.90434816),
        "order": "bgr",
        "scale": 255.0,
        "post_scale": 1 / 255,
    },
    # The images as they are.
    "none": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
}


class InputNormalisation(nn.Module):
    """Brings RGB images in 0..1 to the colour order and range a network was trained on.

    Computes, in this order: channels to `order`; times `scale`; minus `mean`; divided by `std`;
    times `post_scale`. So `mean` and `std` are in the units after `scale` and in the channel order
    `order`. ESPNet's input, (255 BGR - mean) / std / 255, is `order="bgr", scale=255,
    post_scale=1/255`.

    It lives inside the network, so that data sets give plain RGB and an exported file carries its
    own normalisation. The buffers are not saved with the weights: they belong to the definition,
    and `spec` rebuilds them.

    Args:
        mean: One number a channel; their number is the number of input channels.
        std: One number a channel, not zero.
        order: "rgb", or "bgr" to swap the channels first.
        scale: 1 for networks that read 0..1, 255 for those that read 0..255.
        post_scale: A last factor.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        order: Literal["rgb", "bgr"] = "rgb",
        scale: float = 1.0,
        post_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not len(mean):
            raise ValueError(
                f"there are {len(mean)} means and {len(std)} stds; expected one of each per channel"
            )
        if any(value == 0 for value in std):
            raise ValueError(f"std is {list(std)}; expected no zero")
        if order not in ("rgb", "bgr"):
            raise ValueError(unknown("channel order", str(order), ["rgb", "bgr"]))
        self.order, self.scale, self.post_scale = order, float(scale), float(post_scale)
        # As given, for `spec`: the buffers may be cast to half precision later.
        self._mean, self._std = [float(m) for m in mean], [float(s) for s in std]
        shape = (1, len(mean), 1, 1)
        self.register_buffer("mean", torch.tensor(self._mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(self._std).view(shape), persistent=False)

    @property
    def spec(self) -> dict[str, Any]:
        """The settings as plain values: `InputNormalisation(**spec)` gives an equal one."""
        return {
            "mean": self._mean,
            "std": self._std,
            "order": self.order,
            "scale": self.scale,
            "post_scale": self.post_scale,
        }

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        channels = len(self._mean)
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(
                f"images have the shape {tuple(images.shape)}; expected b {channels} h w. "
                "Stack single images with images[None]"
            )
        if not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype}; expected floats in 0..1. Divide by 255 first"
            )
        if self.order == "bgr":
            images = images.flip(1)
        if self.scale != 1.0:
            images = images * self.scale
        images = (images - self.mean) / self.std
        return images if self.post_scale == 1.0 else images * self.post_scale

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.spec.items())


InputSetting = str | Mapping[str, Any] | InputNormalisation | None
"""What sets a normalisation: a name of `INPUTS`, settings, an instance, or None for the usual one."""


def make_input(
    spec: str | Mapping[str, Any] | InputNormalisation, channels: int | None = None
) -> InputNormalisation:
    """The normalisation for a name of `INPUTS`, a mapping of settings, or an instance (as it is).

    Args:
        spec: Of three channels, where it is a name.
        channels: How many there must be; None: as many as there are. A name is brought to them by `spread`.

    Raises:
        ValueError: an unknown name or setting, or another number of channels.
    """
    if isinstance(spec, str):
        if spec not in INPUTS:
            raise ValueError(unknown("input normalisation", spec, INPUTS))
        spec = spread(INPUTS[spec], channels or 3)
    if not isinstance(spec, InputNormalisation):
        settings = ("mean", "std", "order", "scale", "post_scale")
        for key in spec:
            if key not in settings:
                raise ValueError(unknown("setting of the input normalisation", key, settings))
        if "mean" not in spec or "std" not in spec:
            raise ValueError(
                f"input has {sorted(spec)}; expected mean and std. Add what is missing"
            )
        spec = InputNormalisation(**spec)
    found = len(spec.spec["mean"])
    if channels not in (None, found):
        raise ValueError(
            f"input has a mean for {found} channels; expected {channels} (in_channels). "
            "Give one mean and one std per channel"
        )
    return spec


def spread(settings: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Settings for RGB as those for another number of channels: each gets the mean of the three.

    Raises:
        ValueError: they are for BGR, which is of three channels.
    """
    if channels == len(settings["mean"]):
        return dict(settings)
    if settings.get("order") == "bgr":
        raise ValueError(
            f"input is BGR; expected {channels} channels. Give one mean and one std per channel"
        )
    means = {key: [sum(settings[key]) / len(settings[key])] * channels for key in ("mean", "std")}
    return {**settings, **means}
