"""The head for deep supervision, shared by all networks that have one."""

from jaxtyping import Float
from torch import Tensor, nn

from segdistill.models.layers.convolution import classifier, conv_norm_act, initialise


class AuxiliaryHead(nn.Module):
    """Logits from the second-deepest level, for deep supervision.

    3×3 convolution (with bias), batch norm, leaky ReLU, dropout, 1×1 convolution.

    The form "skd" is the `dsn` head of the released PSPNet (SKD, IFVD): 256 → 128 for ResNet-18,
    1024 → 512 for ResNet-101. Its InPlace-ABN is written as batch norm and leaky ReLU 0.01. In the form
    "cirkd", which is mmsegmentation's ("mmseg") too, the 3×3 has no bias, the ReLU does not leak, and
    inside it is a quarter as wide.

    Args:
        in_channels: Of the level it reads.
        num_classes: Of the logits.
        dropout: Share of whole channels dropped in training.
        width: Channels inside; None for half ("skd") or a quarter, but at least 32.
        form: The released code that is followed.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: float = 0.1,
        width: int | None = None,
        form: str = "skd",
    ) -> None:
        super().__init__()
        skd = form == "skd"
        if width is None:
            width = max(32, in_channels // (2 if skd else 4))
        leaky = 0.01 if skd else 0.0
        self.conv = conv_norm_act(in_channels, width, kernel=3, bias=skd, leaky=leaky)
        self.dropout = nn.Dropout2d(dropout)
        initialise(self)
        self.classifier = classifier(width, num_classes)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        logits: Tensor = self.classifier(self.dropout(self.conv(x)))
        return logits
