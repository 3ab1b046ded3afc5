"""The critic of holistic distillation: it scores the logits of a whole image."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from segdistill.geometry import Cells, resample

_WIDTHS = (64, 128, 256, 512)
_ATTENTIVE = (256, 512)
_LAST_KERNEL = 4
_IMAGE_CHANNELS = 3
LEAST_SIDE = 8
"""The critic halves its input at least three times; a smaller map leaves nothing to score."""


class Critic(nn.Module):
    """Scores maps of logits: high for those it takes for the teacher's.

    The network of Liu et al., "Structured Knowledge Distillation for Semantic Segmentation" (CVPR
    2019, https://arxiv.org/abs/1903.04197), after Zhang et al., "Self-Attention Generative
    Adversarial Networks" (ICML 2019, https://arxiv.org/abs/1805.08318): four 4x4 convolutions of
    stride 2 with spectral normalisation and leaky ReLU (0.1), self-attention after the third and
    the fourth, and a last convolution without padding to one channel. On the 65x65 logits of a
    512x512 crop it is the released one: the last kernel is 4x4 and covers all of the 4x4 that are
    left (3,191,721 trainable parameters at 19 classes with batch normalisation).

    On larger maps, which the released code cannot read but CIRKD's can, the last kernel gives
    several patch scores, for the loss to average. Where fewer than 4 cells are left in a direction,
    the kernel is cut to them (ours). With a side under 16 the fourth convolution and its attention
    are left out, as the released code leaves them out of all but 65x65. Sides under 8 are refused.

    Spectral normalisation runs one power iteration in each forward pass in `train` mode, as the
    released one does in any mode, and starts from 15 at its making, where the released one starts
    from noise; in `eval` mode it holds still.

    Args:
        channels: classes.
        size: height and width of the maps.
        batch_norm: normalise each class over the batch first, as released; else the critic reads the
            class probabilities.
        conditional: read the image beside the logits.

    Attributes:
        cells: where the cells of the logits lie on the image, which is brought to them; None: by half
            pixels, the whole image to the whole map.

    Raises:
        ValueError: for a side under 8.
    """

    cells: Cells | None = None

    def __init__(
        self, channels: int, size: tuple[int, int], *, batch_norm: bool, conditional: bool
    ) -> None:
        super().__init__()
        if min(size) < LEAST_SIDE:
            raise ValueError(
                f"holistic: the logits are {size[0]}x{size[1]}; the critic expects at least "
                f"{LEAST_SIDE}x{LEAST_SIDE}. Use larger crops (train.crop) or drop the term (weight 0)"
            )
        self.normalise: nn.Module = nn.BatchNorm2d(channels) if batch_norm else nn.Softmax(1)
        self.conditional = conditional
        first = channels + _IMAGE_CHANNELS * conditional
        widths = _WIDTHS if min(size) >= 2 ** len(_WIDTHS) else _WIDTHS[:-1]
        layers: list[nn.Module] = []
        for before, width in pairwise((first, *widths)):
            layers.append(_halving(before, width))
            if width in _ATTENTIVE:
                layers.append(SelfAttention(width))
        rows, columns = (min(_LAST_KERNEL, side // 2 ** len(widths)) for side in size)
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, (rows, columns)))

    def forward(
        self, logits: Float[Tensor, "b c h w"], images: Float[Tensor, "b ci hi wi"] | None = None
    ) -> Float[Tensor, "b p"]:
        """The scores of each image's patches, one where both sides are under 80.

        Args:
            logits: raw logits.
            images: RGB in 0..1, read where the critic is conditional.
        """
        weight = next(self.parameters())
        seen = self.normalise(logits.to(weight))
        if self.conditional:
            assert images is not None
            if images.shape[1] != _IMAGE_CHANNELS:
                raise ValueError(
                    f"holistic: the images have {images.shape[1]} channels; the conditional critic "
                    "expects RGB. Set terms.holistic.options.conditional to false"
                )
            seen = torch.cat([seen, self._beside(logits, images.to(weight))], 1)
        scores: Tensor = self.layers(seen).flatten(1)
        return scores.to(logits.dtype)

    def _beside(self, logits: Tensor, images: Tensor) -> Tensor:
        if self.cells is None:
            return F.interpolate(images, logits.shape[2:], mode="bilinear", antialias=True)
        return resample(images, Cells.of_pixels(self.cells.image), self.cells)


class SelfAttention(nn.Module):
    """Adds to each position what resembles it anywhere on the map, through a gate initialised to 0.

    Zhang et al., "Self-Attention Generative Adversarial Networks" (ICML 2019,
    https://arxiv.org/abs/1805.08318): x + γ·V·softmax(QᵀK) over the positions; queries and keys
    have an eighth of the channels and are not scaled.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        # torch's fused attention has no second derivative, which the gradient penalty needs.
        attention = (query.transpose(1, 2) @ key).softmax(2)
        gathered = (value @ attention.transpose(1, 2)).reshape(x.shape)
        mixed: Tensor = x + self.gate * gathered
        return mixed


def _halving(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)
    )
