"""The dilated deep-stem ResNet of the paper's PSPNets, which no package offers."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.files.backbone_keys import recognise, renamed
from segdistill.models.files.weights import LoadReport, load_state, read_weights
from segdistill.models.layers.convolution import initialise
from segdistill.models.layers.pooling import max_pool_up


def _norm_conv(inside: int, out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inside, out, kernel, stride, padding, dilation, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, both dilated (the first by `first`), around a shortcut."""

    expansion = 1

    def __init__(
        self,
        inside: int,
        planes: int,
        stride: int,
        dilation: int,
        shortcut: nn.Module,
        first: int | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = _norm_conv(inside, planes, 3, stride, first or dilation)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _norm_conv(planes, planes, 3, 1, dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        # A new tensor, then in place on it: x may be tapped.
        return self.relu(out + self.downsample(x))  # type: ignore[no-any-return]


class OnceDilatedBlock(BasicBlock):
    """The same with a second convolution that is not dilated, as in mmsegmentation."""

    def __init__(self, inside: int, planes: int, *others: Any) -> None:
        super().__init__(inside, planes, *others)
        self.conv2 = _norm_conv(planes, planes, 3)


class Bottleneck(nn.Module):
    """1×1, 3×3 (strided, dilated by `first`) and 1×1 convolution, the last four times as wide."""

    expansion = 4

    def __init__(
        self,
        inside: int,
        planes: int,
        stride: int,
        dilation: int,
        shortcut: nn.Module,
        first: int | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = _norm_conv(inside, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _norm_conv(planes, planes, 3, stride, first or dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _norm_conv(planes, planes * 4, 1)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))  # type: ignore[no-any-return]


class DeepStemResNet(nn.Module):
    """ResNet with three 3×3 convolutions for a stem and dilation from `layer3` on: output stride 8.

    As in the released code of SKD, IFVD and TorchDistiller (`Res_pspnet`): stem w-w-2w, max-pool
    with `ceil_mode` (a 512 crop gives 65×65, not 64×64; the paper's multiply-adds need it), layers
    of stride 1, 2, 1, 1 and dilation 1, 1, 2, 4. Names of the parameters are theirs, so their
    deep-stem ImageNet files fit; torchvision's ResNet-18 (7×7 stem) does not.

    The form "cirkd" is CIRKD's (`resnetv1b`, the "v1s" networks): the max-pool rounds down (512 gives
    64×64), and the first 3×3 of a dilated layer has half of its dilation. Same parameters and names.
    The form "mmseg" is mmsegmentation's `ResNetV1c`: as CIRKD's, with a stem half as wide (32-32-64), and
    the second 3×3 of a basic block is not dilated.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: Blocks in each of the four layers.
        width: Of the stem's first convolution; 64 in the paper, 32 for its half-width student.
        form: The released code that is followed.
    """

    centred = True

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        width: int = 64,
        form: str = "skd",
    ) -> None:
        super().__init__()
        self.form = form
        stem = width // 2 if form == "mmseg" else width
        self.conv1 = _norm_conv(3, stem, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = _norm_conv(stem, stem, 3)
        self.bn2 = nn.BatchNorm2d(stem)
        self.conv3 = _norm_conv(stem, 2 * stem, 3)
        self.bn3 = nn.BatchNorm2d(2 * stem)
        self.relu = nn.ReLU(inplace=True)
        self._inside = 2 * stem
        if form == "mmseg" and block is BasicBlock:
            block = OnceDilatedBlock
        self.layer1 = self._layer(block, width, layers[0])
        self.layer2 = self._layer(block, 2 * width, layers[1], stride=2)
        self.layer3 = self._layer(block, 4 * width, layers[2], dilation=2)
        self.layer4 = self._layer(block, 8 * width, layers[3], dilation=4)
        self.channels = [width * block.expansion * factor for factor in (1, 2, 4, 8)]
        self.reductions = [4, 8, 8, 8]
        self.levels = 4
        initialise(self)

    def _layer(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilation: int = 1,
    ) -> nn.Sequential:
        out = planes * block.expansion
        shortcut: nn.Module = nn.Identity()
        if stride != 1 or self._inside != out:
            shortcut = nn.Sequential(_norm_conv(self._inside, out, 1, stride), nn.BatchNorm2d(out))
        halved = dilation if self.form == "skd" else max(1, dilation // 2)
        first = block(self._inside, planes, stride, dilation, shortcut, halved)
        self._inside = out
        rest = [block(out, planes, 1, dilation, nn.Identity()) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def stem(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d rows columns"]:
        """What comes before the layers, at stride 4."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        return max_pool_up(x) if self.form == "skd" else F.max_pool2d(x, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Outputs of the four layers, at strides 4, 8, 8, 8."""
        x = self.stem(x)
        levels = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            levels.append(x)
        return levels


def load_deep_stem(
    encoder: DeepStemResNet, weights: str | None, published: str | None
) -> LoadReport | None:
    """Starts an encoder from ImageNet weights.

    Args:
        encoder: The network to fill.
        weights: A file, "imagenet", or None to leave it as it is.
        published: The timm network whose ImageNet weights fit this encoder, if there is one.

    Raises:
        ValueError: There are none to download, or a file does not fit.
    """
    if weights is None:
        return None
    if weights != "imagenet":
        return _load(encoder, read_weights(weights), weights)
    if published is None:
        raise ValueError(
            "weights is 'imagenet'; expected a file, since nobody offers ImageNet weights of this deep-stem "
            "encoder for download. Give a path, or use pspnet:resnet18 with weights='imagenet'"
        )
    return _load(encoder, _timm_state(published), published)


def _timm_state(name: str) -> dict[str, Tensor]:
    import timm

    try:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"timm could not download the weights of {name!r}. "
            "Connect to the network, or give weights=PATH"
        ) from error
    return state


def _load(encoder: DeepStemResNet, state: dict[str, Tensor], source: str) -> LoadReport:
    layout = recognise(state)
    names = layout.names(encoder) if layout else {}
    body = {
        renamed(key, names): tensor for key, tensor in state.items() if not key.startswith("fc.")
    }
    left_out = [key for key in state if key.startswith("fc.")]
    return load_state(encoder, body, source=source, left_out=left_out)
