"""Channel-wise distillation (CWD): each channel looks where the teacher's does."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segdistill.losses.base import Loss, check_pair, positive

_PUBLISHED_CLASSES = 19


class ChannelwiseKD(Loss):
    """Kullback-Leibler divergence of each channel, read as a distribution over positions.

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction" (ICCV 2021,
    https://arxiv.org/abs/2011.13256), on logits or on features. With φ = softmax(x / T) over the
    H·W positions of a channel, B images and C channels:

    | form | value |
    | --- | --- |
    | `default` | T² / (19·B) · Σ KL(φ_teacher ‖ φ_student) over images and channels |
    | `torchdistiller`, `mmrazor` | T² / (C·B) · the same sum: authors' code, its port |
    | `cirkd` | T² / (C_student·B) · the same sum: C of the student before any projection |

    A student of another width is projected to the teacher's by the term's 1x1 convolution without
    bias, but in two forms by the loss's own, trained with the student: `cirkd` by such a
    convolution, `torchdistiller` by one with batch normalisation and ReLU behind it (its code has
    the two activations leaky ReLU and ReLU, which make a ReLU, and leaves this layer's learning
    rate constant; ours falls with the others).

    What we do differently: the default sums over channels and divides by a constant, the 19 classes
    of Cityscapes, for which the published weights (3 in the authors' code, 5 in mmrazor) were
    chosen; at 19 channels all forms are equal, so those weights carry over. Neither form is
    independent of C: the term's share of the task's gradient grows about as √C in the default and
    falls about as 1/√C under the published mean (`benchmarks/shares.py`), so with many classes or
    wide features the default asks for a lower weight, w · √(19 / C). Both sides are taken by
    `log_softmax`: the released `softmax().log()` gives -inf where a peaked map underflows.

    Args:
        temperature: T, which flattens both distributions. The authors' code uses 4 on logits;
            mmrazor's Cityscapes recipe 1 with weight 5.
        form: `default`, `torchdistiller`, `mmrazor` or `cirkd`.

    Raises:
        ValueError: for an unknown form or a temperature that is not positive.
    """

    matches_channels = True
    matches_grid = True
    forms = ("default", "torchdistiller", "mmrazor", "cirkd")

    def __init__(self, temperature: float | int = 4.0, form: str = "default") -> None:
        super().__init__(form)
        self.temperature = positive("channelwise", "temperature", temperature)
        self.projects = form in ("torchdistiller", "cirkd")
        self.projection: nn.Module = nn.Identity()

    @property
    def statistic(self) -> str:
        normalised = isinstance(self.projection, nn.Sequential)
        return "batch norm of the projection" if normalised else ""

    def build(self, student_shape: torch.Size, teacher_shape: torch.Size | None) -> None:
        if not self.projects or teacher_shape is None or student_shape[1] == teacher_shape[1]:
            return
        width = teacher_shape[1]
        self.projection = nn.Conv2d(student_shape[1], width, 1, bias=False)
        if self.form == "torchdistiller":
            self.projection = nn.Sequential(self.projection, nn.BatchNorm2d(width), nn.ReLU())

    def forward(
        self, student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "bt ct ht wt"]
    ) -> Float[Tensor, ""]:
        own_channels = student.shape[1]
        student = self.projection(student)
        check_pair("channelwise", student, teacher, channels=True, grid=True)
        images, channels = student.shape[:2]
        shares = {"default": _PUBLISHED_CLASSES, "cirkd": own_channels}
        share = shares.get(self.form, channels)
        total = channel_kl(student, teacher.detach(), self.temperature).sum()
        return total * (self.temperature**2 / (images * share))


def channel_kl(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"], temperature: float
) -> Float[Tensor, "b c"]:
    """KL(teacher ‖ student) of each channel's distribution over positions, in nats."""
    return F.kl_div(
        F.log_softmax(student.flatten(2) / temperature, 2),
        F.log_softmax(teacher.flatten(2) / temperature, 2),
        reduction="none",
        log_target=True,
    ).sum(2)
