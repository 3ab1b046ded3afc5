"""ICNet (Zhao et al., ECCV 2018): the deep part of the network sees a quarter of the image's size."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel, aux_is_wanted
from segdistill.models.input import InputNormalisation, InputSetting, make_input
from segdistill.models.layers.convolution import classifier, conv_norm_act, initialise
from segdistill.models.layers.pooling import adaptive_avg_pool
from segdistill.models.layers.resnet import Bottleneck, DeepStemResNet, load_deep_stem


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _halved(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)


class SummedPyramid(nn.Module):
    """Pyramid pooling without convolutions: means over 1, 2, 3, 6 bins, resized and summed."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        means = (_resized(adaptive_avg_pool(x, bins), x.shape[-2:]) for bins in (1, 2, 3, 6))
        return sum(means, x)


class CascadeFusion(nn.Module):
    """Cascade feature fusion (section 3.3): a coarse map, resized and dilated, plus a finer one."""

    def __init__(self, coarse_channels: int, fine_channels: int, out_channels: int) -> None:
        super().__init__()
        self.coarse = conv_norm_act(coarse_channels, out_channels, kernel=3, dilation=2)[:2]
        self.fine = conv_norm_act(fine_channels, out_channels)[:2]

    def forward(
        self, coarse: Float[Tensor, "b c i j"], fine: Float[Tensor, "b d h w"]
    ) -> tuple[Float[Tensor, "b e h w"], Float[Tensor, "b e h w"]]:
        """The sum, and what the coarse map has in it."""
        coarse = self.coarse(_resized(coarse, fine.shape[-2:]))
        return (coarse + self.fine(fine)).relu(), coarse


class ICNet(SegmentationModel):
    """Three branches of one image: full size shallow, half size to `conv3_1`, quarter size to the end.

    As released: the half-size branch runs the encoder's first blocks and hands its map, halved once
    more, to the deep rest, so that the two share their weights; the pyramid sums its means; a classifier
    at stride 4.

    Taps: `logits`; `features`, what the classifier reads; `context`, the deep branch's output; `layer1`,
    `layer3`, `layer4`, levels of the encoder; `aux` and `aux_coarse`, the cascade label guidance at
    strides 8 and 16. Any height and width from 32 on. Logits are to be resized with
    `align_corners=True`.

    Args:
        encoder: A deep-stem ResNet of bottlenecks.
        num_classes: Channels of the logits.
        aux: Whether there is label guidance. It runs in training, or when its taps are open.
        input: First operation.
    """

    def __init__(
        self, encoder: DeepStemResNet, num_classes: int, aux: bool, input: InputNormalisation
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 1
        self.input = input
        self.encoder = encoder
        deepest, middle = encoder.channels[-1], encoder.channels[1]
        self.shallow = nn.Sequential(
            conv_norm_act(3, 32, kernel=3, stride=2),
            conv_norm_act(32, 32, kernel=3, stride=2),
            conv_norm_act(32, 64, kernel=3, stride=2),
        )
        self.context = nn.Sequential(SummedPyramid(), conv_norm_act(deepest, deepest // 4))
        self.fuse_medium = CascadeFusion(deepest // 4, middle, 128)
        self.fuse_fine = CascadeFusion(128, 64, 128)
        for part in (self.shallow, self.context, self.fuse_medium, self.fuse_fine):
            initialise(part)
        self.features = nn.Identity()
        self.classifier = classifier(128, num_classes)
        # In a module of their own each: a hook on it is what opens the tap.
        self.aux = nn.Sequential(classifier(128, num_classes)) if aux else None
        self.aux_coarse = nn.Sequential(classifier(128, num_classes)) if aux else None
        self.taps = {
            "logits": "",
            "features": "features",
            # There is no dropout, so the tap of the released losses is the same place.
            "features_released": "features",
            "context": "context",
        }
        self.taps |= {name: f"encoder.{name}" for name in ("layer1", "layer3", "layer4")}
        if aux:
            self.taps |= {"aux": "aux", "aux_coarse": "aux_coarse"}

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        x = self.input(images)
        first, *rest = self.encoder.layer2
        medium = first(self.encoder.layer1(self.encoder.stem(_halved(x))))
        deep = _halved(medium)
        for block in rest:
            deep = block(deep)
        deep = self.context(self.encoder.layer4(self.encoder.layer3(deep)))
        fused, coarse = self.fuse_medium(deep, medium)
        fused, fine = self.fuse_fine(fused, self.shallow(x))
        for head, branch in ((self.aux_coarse, coarse), (self.aux, fine)):
            if head is not None and aux_is_wanted(self, head):
                head(branch)  # read by a hook on it
        rows, columns = fused.shape[-2:]
        logits: Tensor = self.classifier(self.features(_resized(fused, (2 * rows, 2 * columns))))
        return logits


def icnet(
    num_classes: int,
    *,
    layers: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    aux: bool = True,
    input: InputSetting = None,
    weights: str | None = None,
) -> ICNet:
    """ICNet on ResNet-50.

    As its authors trained it before they halved it; `width=32` is their fast network. `weights`: None,
    "imagenet" (timm's download, for ResNet-50 of full width), or a file. The rest as for `ICNet`.
    """
    encoder = DeepStemResNet(Bottleneck, layers, width)
    whole = (tuple(layers), width) == ((3, 4, 6, 3), 64)
    report = load_deep_stem(encoder, weights, "resnet50s" if whole else None)
    model = ICNet(encoder, num_classes, aux, make_input("imagenet" if input is None else input))
    model.weights_report = report
    return model
