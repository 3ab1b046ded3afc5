"""ERFNet (Romera et al., IEEE T-ITS 2018)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.contract import SegmentationModel
from segdistill.models.input import InputSetting, make_input
from segdistill.models.layers.convolution import classifier, level
from segdistill.models.layers.padding import pad_to_multiple


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Down(nn.Module):
    """Halves the size: a strided 3×3 and a max-pool side by side."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.norm = _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(torch.cat([self.conv(x), F.max_pool2d(x, 2)], dim=1)))


class Factorised(nn.Module):
    """Two 3×3 convolutions around a shortcut, each as a 3×1 and a 1×3; the second is dilated."""

    def __init__(self, channels: int, dropout: float = 0.0, dilation: int = 1) -> None:
        super().__init__()

        def pair(d: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=d),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=d),
                _norm(channels),
            ]

        self.body = nn.Sequential(
            *pair(1), nn.ReLU(inplace=True), *pair(dilation), nn.Dropout2d(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Up(nn.Sequential):
    """Doubles the size by a transposed 3×3."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1),
            _norm(out_channels),
            nn.ReLU(),
        )


class ERFNet(SegmentationModel):
    """ERFNet; logits at the size of the image.

    As released for PyTorch by its authors (`erfnet_pytorch`), default initialisation of torch included,
    but that both classifiers start level: what the residual blocks add up to would upset the first steps.

    Taps: `logits`; `features`, the 16 channels at stride 2 before the last transposed convolution (no
    dropout between them: `features_released` is the same); `context`, the encoder's output at stride 8;
    `logits_encoder`, its own classifier, with which the authors train the encoder first. It runs when
    its tap is open, and learns when a term reads it; the published parameters include it, the
    published multiply-adds do not.

    Any height and width: what is no multiple of 8 is padded inside, and the logits are cut back.

    Args:
        num_classes: Channels of the logits.
        input: First operation.
    """

    def __init__(self, num_classes: int, input: InputSetting = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = True, 8
        self.input = make_input("imagenet" if input is None else input)
        self.encoder = nn.Sequential(
            Down(3, 16),
            Down(16, 64),
            *(Factorised(64, 0.03) for _ in range(5)),
            Down(64, 128),
            *(Factorised(128, 0.3, dilation) for dilation in (2, 4, 8, 16) * 2),
        )
        # In a container of its own: a counter's hook on the convolution is no open tap.
        self.encoder_classifier = nn.Sequential(classifier(128, num_classes))
        self.decoder = nn.Sequential(
            Up(128, 64), Factorised(64), Factorised(64), Up(64, 16), Factorised(16), Factorised(16)
        )
        self.classifier = nn.ConvTranspose2d(16, num_classes, 2, stride=2)
        level(self.classifier)
        self.taps = {
            "logits": "",
            "features": "decoder",
            "features_released": "decoder",
            "context": "encoder",
            "logits_encoder": "encoder_classifier",
        }
        # As the decoder puts them back: two 3×3 at stride 2 onto even cells, a 2×2 onto two pixels each.
        self.cells = {"features": (2, 0.5), "features_released": (2, 0.5)}
        self.cells |= {"context": (8, 0.5), "logits_encoder": (8, 0.5)}

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        height, width = images.shape[-2:]
        context = self.encoder(pad_to_multiple(self.input(images), 8))
        if self.encoder_classifier._forward_hooks:
            self.encoder_classifier(context)  # read by a hook on it
        logits: Tensor = self.classifier(self.decoder(context))
        return logits[..., :height, :width]


def erfnet(num_classes: int, *, input: InputSetting = None) -> ERFNet:
    """ERFNet.

    2,066,642 parameters at 19 classes, 25.60 G multiply-adds at 512×1024.
    """
    return ERFNet(num_classes, input)
