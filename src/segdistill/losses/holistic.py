"""Holistic distillation: a critic cannot tell the student's class scores from the teacher's."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from segdistill.losses.adversary import Adversary
from segdistill.losses.base import Loss, check_pair, one_of, positive
from segdistill.losses.critic import Critic

_PENALTY = 10.0
_POWER = 0.9


@dataclass(frozen=True)
class _Setting:
    objective: str
    optimizer: str
    schedule: str
    batch_norm: bool
    critic_weight: float


_FORMS = {
    "default": _Setting("hinge", "adam", "poly", False, 1.0),
    "skd": _Setting("wgan", "sgd", "poly", True, 0.1),
    "ifvd": _Setting("wgan", "adam", "poly", True, 0.1),
    "cirkd": _Setting("hinge", "adam", "constant", True, 0.1),
}


class HolisticKD(Loss):
    """The critic's verdict on the student: minus the mean score of its logits.

    The holistic term of Liu et al., "Structured Knowledge Distillation for Semantic Segmentation"
    (CVPR 2019, https://arxiv.org/abs/1903.04197). A critic D, trained alongside the student, scores
    whole maps of logits, high for the teacher's and low for the student's, and the student seeks
    high scores:

        student   -mean D(S)
        critic    -mean D(T) + mean D(S) + 10 · mean over images of (‖∇D(x)‖₂ - 1)²         (wgan)
                  mean max(0, 1 - D(T)) + mean max(0, 1 + D(S))                            (hinge)

    with x = α T + (1 - α) S, one α in 0..1 per image (WGAN-GP: Gulrajani et al., NIPS 2017,
    https://arxiv.org/abs/1704.00028; hinge: SAGAN, Zhang et al., ICML 2019,
    https://arxiv.org/abs/1805.08318). The value alone is not informative: it may be negative, and
    falls as the student's scores rise.

    | form | objective | optimizer (4e-4) | schedule | critic's weight | critic reads |
    | --- | --- | --- | --- | --- | --- |
    | `default` | hinge | Adam | poly | 1 | class probabilities |
    | `skd` | wgan | SGD | poly | 0.1 | logits, batch-normalised |
    | `ifvd` | wgan | Adam | poly | 0.1 | logits, batch-normalised |
    | `cirkd` | hinge | Adam | constant | 0.1 | logits, batch-normalised |

    Momentum is 0.9 and weight decay the student's (SGD); betas are 0.9 and 0.99 without weight decay
    (Adam); poly is (1 - step/steps)^0.9. The released weights of the student's term are 0.1 (SKD) and
    0.001 (IFVD, CIRKD).

    A critic's normalisation is that of what it is shown at a time: of a part, where a batch is split
    (`train.accumulate`, several processes).

    What we do differently: `default` takes no penalty, and with it no second derivative, since
    spectral normalisation bounds the slope already. Its critic reads softmax(logits): a constant
    added to a pixel's logits does not change it, and no image's score depends on the others of its
    batch, as it does under batch normalisation. The published forms normalise over the images of
    one process, where CIRKD synchronises. Where a map gives several patch scores (the critic says
    when), means and hinge are over all of them, as in CIRKD's code, and the penalty uses the slope
    of an image's mean, a case that SKD's and IFVD's codes, with one patch, leave open.

    Args:
        form: `default`, `skd`, `ifvd` or `cirkd`.
        objective: `wgan` (with the penalty) or `hinge`; None: that of the form.
        conditional: the critic also reads the image at the cells of the logits, concatenated to
            them, as in SKD's first release (which reads probabilities, as `default` does). Published
            forms resize it to the logits' grid by half pixels.
        optimizer: of the critic, `sgd` or `adam`; None: that of the form.
        lr: the critic's learning rate.
        schedule: `poly` or `constant`; None: that of the form.
        critic_weight: factor of the critic's loss; None: that of the form.
        seed: of the critic's initial weights. It does not advance torch's global generator, from
            which the penalty draws its α.

    Raises:
        ValueError: for an unknown form, objective, optimizer or schedule, or a rate or weight that
            is not positive; from `build` for logits under 8x8.
    """

    matches_channels = True
    matches_grid = True
    forms = tuple(_FORMS)

    def __init__(
        self,
        form: str = "default",
        objective: str | None = None,
        conditional: bool = False,
        optimizer: str | None = None,
        lr: float | int = 4e-4,
        schedule: str | None = None,
        critic_weight: float | int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(form)
        given = _FORMS[form]
        weight = given.critic_weight if critic_weight is None else critic_weight
        self.setting = _Setting(
            one_of("holistic", "objective", objective or given.objective, _OBJECTIVES),
            one_of("holistic", "optimizer", optimizer or given.optimizer, ["sgd", "adam"]),
            one_of("holistic", "schedule", schedule or given.schedule, ["poly", "constant"]),
            given.batch_norm,
            positive("holistic", "critic_weight", weight),
        )
        self.lr = positive("holistic", "lr", lr)
        self.conditional, self.seed = conditional, seed
        self.adversary: CriticObjective | None = None

    @property
    def statistic(self) -> str:
        return "critic"

    def build(self, student_shape: torch.Size, teacher_shape: torch.Size | None) -> None:
        channels, height, width = student_shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            critic = Critic(
                channels,
                (height, width),
                batch_norm=self.setting.batch_norm,
                conditional=self.conditional,
            )
        self.adversary = CriticObjective(critic, self.setting, self.lr)
        self.adversary.requires_grad_(False)

    def forward(
        self,
        student: Float[Tensor, "b c h w"],
        teacher: Float[Tensor, "bt ct ht wt"],
        images: Float[Tensor, "b ci hi wi"] | None = None,
    ) -> Float[Tensor, ""]:
        """The student's loss; only the critic's own step reads the teacher's logits."""
        check_pair("holistic", student, teacher, channels=True, grid=True)
        if self.adversary is None:
            raise ValueError(
                "holistic: there is no critic yet; call build(student_shape, teacher_shape) first"
            )
        if self.conditional and images is None:
            raise ValueError(
                "holistic: images is None; with conditional=True the critic expects the batch's images"
            )
        # The critic's own step, which follows, reads the same images.
        published = self.form != "default"
        self.adversary.critic.cells = None if published or not self.cells else self.cells[0]
        verdict: Tensor = self.adversary.critic(student, images).mean()
        return -verdict


class CriticObjective(Adversary):
    """The critic with what it minimises, on detached logits of both networks."""

    def __init__(self, critic: Critic, setting: _Setting, lr: float) -> None:
        super().__init__()
        self.critic, self.setting, self.lr = critic, setting, lr
        self.weight = setting.critic_weight

    def forward(
        self,
        student: Float[Tensor, "b c h w"],
        teacher: Float[Tensor, "b c h w"],
        images: Float[Tensor, "b ci hi wi"] | None = None,
    ) -> Float[Tensor, ""]:
        fake, real = self.critic(student, images), self.critic(teacher, images)
        loss = _OBJECTIVES[self.setting.objective](fake, real)
        if self.setting.objective == "wgan":
            loss = loss + _PENALTY * gradient_penalty(
                lambda maps: self.critic(maps, images).mean(1), student, teacher
            )
        return loss

    def optimizer(self, weight_decay: float) -> torch.optim.Optimizer:
        if self.setting.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), self.lr, betas=(0.9, 0.99))
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9, weight_decay=weight_decay)

    def learning_rate(self, progress: float) -> float:
        poly = self.setting.schedule == "poly"
        return float(self.lr * (1 - progress) ** _POWER) if poly else self.lr


def wasserstein(fake: Float[Tensor, "b p"], real: Float[Tensor, "b p"]) -> Float[Tensor, ""]:
    """Mean score of the student's maps less that of the teacher's."""
    return fake.mean() - real.mean()


def hinge(fake: Float[Tensor, "b p"], real: Float[Tensor, "b p"]) -> Float[Tensor, ""]:
    """How far the student's scores are above -1 and the teacher's below 1, in the mean."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def gradient_penalty(
    score: Callable[[Tensor], Tensor],
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c h w"],
) -> Float[Tensor, ""]:
    """Mean over images of (‖∇ score‖₂ - 1)² at points drawn between the two maps.

    Args:
        score: gives one number per image.
        student: maps at one end.
        teacher: maps at the other.
    """
    share = torch.rand(len(student), 1, 1, 1, dtype=student.dtype, device=student.device)
    points = torch.lerp(student.detach(), teacher.detach(), share).requires_grad_()
    (slope,) = torch.autograd.grad(score(points).sum(), points, create_graph=True)
    steepness: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    return (steepness - 1).square().mean()


_OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "wgan": wasserstein,
    "hinge": hinge,
}
