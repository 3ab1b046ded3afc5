"""FCN-8s (Long et al., CVPR 2015) on VGG16: classifiers at three depths, summed from coarse to fine."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import vgg

from segdistill.models.contract import SegmentationModel
from segdistill.models.files.weights import LoadReport, load_state, read_weights
from segdistill.models.input import InputNormalisation, InputSetting, make_input
from segdistill.models.layers.convolution import classifier, initialise

# Where torchvision's VGG16 pools to strides 8, 16 and 32.
_POOLS = (16, 23, 30)
# As released: the image is padded by 100, so that fc6 finds 7×7 positions in any; the crops undo what is
# left of that at strides 16, 8 and 1.
_PADDING, _CROP16, _CROP8, _CROP1 = 100, 5, 9, 31


def bilinear_upsampling(channels: int, stride: int) -> nn.ConvTranspose2d:
    """Transposed convolution of kernel 2·stride, without bias, that starts as bilinear interpolation."""
    kernel = 2 * stride
    layer = nn.ConvTranspose2d(channels, channels, kernel, stride, bias=False)
    position = torch.arange(kernel, device=layer.weight.device)
    slope = 1 - (position - (kernel - 1) / 2).abs() / stride
    with torch.no_grad():
        layer.weight.copy_(
            torch.eye(channels, device=slope.device)[:, :, None, None] * slope[:, None] * slope
        )
    return layer


def _cropped(x: Tensor, offset: int, like: Tensor) -> Tensor:
    rows, columns = like.shape[-2:]
    return x[..., offset : offset + rows, offset : offset + columns]


class FCN8s(SegmentationModel):
    """VGG16 with its first two classifier layers as 7×7 and 1×1 convolutions; logits at image size.

    Scores of fc7 (stride 32) are upsampled by 2 and added to those of pool4, by 2 again and added to
    those of pool3, then by 8. All three upsamplings start bilinear and are learned; the paper fixes
    the last. The scores start near zero, the paper's at zero.

    Taps: `logits`; `features`, fc7's output before its dropout, at stride 32; `features_released`, the
    same after it; `layer3`..`layer5`, pool3 to pool5. Any height and width. `align_corners` is without
    effect, since the logits have the image's size.

    Args:
        num_classes: Channels of the logits.
        input: First operation.
        width: Of the first convolution; all others in proportion (64: VGG16 and fc layers of 4096).
        dropout: Share of values dropped after fc6 and fc7 in training.
    """

    def __init__(
        self, num_classes: int, input: InputNormalisation, width: int = 64, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = False, 1
        self.input = input
        layers: list[Any] = [c if c == "M" else int(c) * width // 64 for c in vgg.cfgs["D"]]
        self.encoder = vgg.make_layers(layers)
        for i, layer in enumerate(self.encoder):
            if isinstance(layer, nn.MaxPool2d):
                # Rounded up, as Caffe does; see `segdistill.models.layers.pooling`.
                self.encoder[i] = nn.Sequential(
                    nn.ConstantPad2d((0, 1, 0, 1), float("-inf")), nn.MaxPool2d(2)
                )
        self.fc6 = nn.Sequential(nn.Conv2d(8 * width, 64 * width, 7), nn.ReLU(inplace=True))
        self.fc7 = nn.Sequential(nn.Conv2d(64 * width, 64 * width, 1), nn.ReLU(inplace=True))
        for part in (self.encoder, self.fc6, self.fc7):
            initialise(part)
        self.dropout6 = nn.Dropout(dropout)
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier(64 * width, num_classes)
        self.score_pool4 = classifier(8 * width, num_classes)
        self.score_pool3 = classifier(4 * width, num_classes)
        self.upscore2 = bilinear_upsampling(num_classes, 2)
        self.upscore_pool4 = bilinear_upsampling(num_classes, 2)
        self.upscore8 = bilinear_upsampling(num_classes, 8)
        self.taps = {"logits": "", "features": "fc7", "features_released": "dropout"}
        self.taps |= {f"layer{i}": f"encoder.{at}" for i, at in enumerate(_POOLS, start=3)}
        # Each pooling is centred between two cells; fc6 starts three cells in.
        pools = {f"layer{i}": (2**i, (2**i - 1) / 2 - (_PADDING - 1)) for i in (3, 4, 5)}
        fc7 = (32, pools["layer5"][1] + 3 * 32)
        self.cells = {"features": fc7, "features_released": fc7, **pools}

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        x = nn.functional.pad(self.input(images), [_PADDING - 1] * 4)
        levels, begin = [], 0
        for at in _POOLS:
            x = self.encoder[begin : at + 1](x)
            levels.append(x)
            begin = at + 1
        pool3, pool4, pool5 = levels
        fc7 = self.fc7(self.dropout6(self.fc6(pool5)))
        score = self.upscore2(self.classifier(self.dropout(fc7)))
        score = self.upscore_pool4(score + _cropped(self.score_pool4(pool4), _CROP16, score))
        score = self.upscore8(score + _cropped(self.score_pool3(pool3), _CROP8, score))
        return _cropped(score, _CROP1, images)


def fcn8s_vgg16(
    num_classes: int,
    *,
    width: int = 64,
    dropout: float = 0.5,
    input: InputSetting = None,
    weights: str | None = None,
) -> FCN8s:
    """FCN-8s on VGG16.

    `weights`: None, "imagenet" (torchvision's download), or a file with torchvision's names of VGG16;
    its first two classifier layers become fc6 and fc7. The rest as for `FCN8s`.
    """
    model = FCN8s(num_classes, make_input("imagenet" if input is None else input), width, dropout)
    if weights == "imagenet":
        model.weights_report = _load_vgg16(model, _torchvision_state(), "torchvision vgg16")
    elif weights is not None:
        model.weights_report = _load_vgg16(model, read_weights(weights), weights)
    return model


def _torchvision_state() -> dict[str, Tensor]:
    try:
        net = vgg.vgg16(weights=vgg.VGG16_Weights.IMAGENET1K_V1)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            "torchvision could not download the weights of VGG16. "
            "Connect to the network, or give weights=PATH"
        ) from error
    state: dict[str, Tensor] = net.state_dict()
    return state


_NAMES = {"features.": "encoder.", "classifier.0.": "fc6.0.", "classifier.3.": "fc7.0."}


def _load_vgg16(model: FCN8s, state: dict[str, Tensor], source: str) -> LoadReport:
    body = nn.ModuleDict({"encoder": model.encoder, "fc6": model.fc6, "fc7": model.fc7})
    own = body.state_dict()
    fitting, left_out = {}, []
    for key, tensor in state.items():
        prefix = next((prefix for prefix in _NAMES if key.startswith(prefix)), "")
        name = _NAMES.get(prefix, "") + key.removeprefix(prefix)
        if key.startswith("classifier.6."):
            left_out.append(key)
        else:
            # A linear layer over 512 × 7 × 7 values is that convolution over 7×7 positions.
            linear = name in own and tensor.numel() == own[name].numel()
            fitting[name] = tensor.reshape(own[name].shape) if linear else tensor
    return load_state(body, fitting, source=source, left_out=left_out)
