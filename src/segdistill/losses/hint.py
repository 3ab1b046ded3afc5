"""Feature regression (hints): the student's features predict the teacher's through a trained linear map."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segdistill.losses.base import Loss, check_pair, raised
from segdistill.losses.moments import balanced_basis, feature_moments

_PREPARED = ("default", "standardised", "phi_s")
_SILENT = 1e-6
_POWER = 4
_EPS = 1e-4
_LEAST = 1e-4


class FeatureRegression(Loss):
    """Mean squared error of a linear map of the student's features against the teacher's.

    Romero et al., "FitNets: Hints for Thin Deep Nets" (ICLR 2015,
    https://arxiv.org/abs/1412.6550). A is a 1x1 convolution from the student's width to the
    teacher's, trained with the student and owned by the loss, also between equal widths: channel i
    of two networks trained apart has no reason to mean the same. Every position counts, labelled or
    not. With t the teacher's features of a position:

    | form | value |
    | --- | --- |
    | `default` | the same as `phi_s` |
    | `mse` | mean of (A s + b - t)² over images, positions and channels |
    | `cirkd` | the same without b, as in CIRKD's code |
    | `standardised` | mean of (A s + b - (t - μ) / σ)², one μ and σ per channel |
    | `phi_s` | mean of (A s + b - H Uᵀ (t - μ) / √mean(e))² |
    | `srd` | 2 log Σ \\|n(A s + b) - n(t)\\|⁴; n: batch normalisation, ε 1e-4 |

    μ, σ and the covariance U diag(e) Uᵀ are those of the teacher's features, measured by `prepare`
    on training crops and frozen. In these forms the value is the fraction of the teacher's variance
    that is left unexplained: 1 for its mean, 0 for its features. It does not change with the
    teacher's scale, the batch, the resolution or, in the mean, the number of channels, so a weight
    carries over between teachers. A channel whose variance is at most 1e-6 of the mean is silent:
    `standardised` asks for its mean there, and does not magnify its noise.

    `phi_s` is the normalisation of Ranzinger et al., "PHI-S" (2024,
    https://arxiv.org/abs/2410.01680): all channels have variance 1, and the geometry of the features
    stays, up to one factor. H is an orthonormal Hadamard matrix; for a width that is no power of two
    it is a product of plane rotations, which gives the channels equal variances as well. As the
    squared error does not change under a rotation, H Uᵀ is taken to A's side, where it costs nothing
    per position: against (t - μ) / √mean(e) the value is the same.

    `srd` is Miles and Mikolajczyk, "Understanding the Role of the Projector in Knowledge
    Distillation" (AAAI 2024, https://arxiv.org/abs/2303.11098), as in its ImageNet code, with the
    sum over images, positions and channels; both networks are normalised by the statistics of the
    batch. The logarithm makes the gradient, not the value, independent of what is summed over.

    Args:
        form: `default`, `mse`, `standardised`, `phi_s`, `srd` or `cirkd`.

    Raises:
        ValueError: for an unknown form.
    """

    matches_channels = True
    matches_grid = True
    projects = True
    forms = ("default", "mse", "standardised", "phi_s", "srd", "cirkd")

    mean: Tensor
    scale: Tensor
    basis: Tensor
    prepared: Tensor

    def __init__(self, form: str = "default") -> None:
        super().__init__(form)
        self.projection: nn.Conv2d | None = None
        self.register_buffer("prepared", torch.tensor(0))

    @property
    def wants_preparation(self) -> bool:
        """Whether the form needs statistics of the teacher's features."""
        return self.form in _PREPARED

    @property
    def statistic(self) -> str:
        return "batch norm and logarithm of the sum" if self.form == "srd" else ""

    def build(self, student_shape: torch.Size, teacher_shape: torch.Size | None) -> None:
        if teacher_shape is None:
            raise ValueError("hint: the teacher is missing; expected one. Add a teacher")
        width = teacher_shape[1]
        self.projection = nn.Conv2d(student_shape[1], width, 1, bias=self.form != "cirkd")
        if self.wants_preparation:
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("scale", torch.ones(width))
        if self._rotates:
            self.register_buffer("basis", torch.eye(width))

    @property
    def _rotates(self) -> bool:
        return self.form in ("default", "phi_s")

    @torch.no_grad()
    def prepare(self, batches: Sequence[tuple[Tensor, Tensor | None]]) -> dict[str, float]:
        """Measure the teacher's features and freeze the statistics.

        Args:
            batches: (student, teacher) tensors of the tap; only the teacher's are read.

        Returns:
            `variance`, the mean over the teacher's channels, and `silent_channels`. Nothing for forms
            without statistics.

        Raises:
            ValueError: before `build`, without batches, or for features that do not vary.
        """
        if not self.wants_preparation:
            return {}
        self._built()
        teachers = [raised(teacher) for _, teacher in batches if teacher is not None]
        if not teachers:
            raise ValueError(
                "hint: batches hold no teacher features; expected at least one (student, teacher) pair"
            )
        mean, covariance = feature_moments(teachers)
        variance = covariance.diagonal()
        average = variance.mean()
        if not average > 0:
            raise ValueError(
                "hint: the teacher's features are constant; expected features that vary. Tap another "
                "layer, or check the teacher's weights"
            )
        silent = variance <= _SILENT * average
        self.to(teachers[0].device)
        self.mean.copy_(mean)
        if self._rotates:
            self.scale.fill_(float(average.rsqrt()))
            self.basis.copy_(balanced_basis(covariance))
        else:
            self.scale.copy_(torch.where(silent, 0.0, variance.rsqrt()))
        self.prepared.fill_(1)
        return {"variance": float(average), "silent_channels": float(silent.sum())}

    def forward(
        self, student: Float[Tensor, "b cs h w"], teacher: Float[Tensor, "bt ct ht wt"]
    ) -> Float[Tensor, ""]:
        projected = self._projected(student)
        check_pair("hint", projected, teacher, channels=True, grid=True)
        teacher = teacher.detach()
        if self.form == "srd":
            return log_difference(batch_normalised(projected), batch_normalised(teacher))
        if self.wants_preparation:
            self._check_prepared()
            teacher = (teacher - _per_channel(self.mean)) * _per_channel(self.scale)
        return (projected - teacher).square().mean()

    def _projected(self, student: Float[Tensor, "b cs h w"]) -> Float[Tensor, "b ct h w"]:
        projection = self._built()
        weight, bias = projection.weight, projection.bias
        if self._rotates and bias is not None:
            # ‖A s + b - Q t‖ = ‖Qᵀ(A s + b) - t‖: a product of two small matrices turns A, not t.
            weight = (self.basis.T @ weight.flatten(1))[..., None, None]
            bias = self.basis.T @ bias
        return F.conv2d(student, weight, bias)

    def _built(self) -> nn.Conv2d:
        if self.projection is None:
            raise ValueError(
                "hint: there is no projection yet; call build(student_shape, teacher_shape) first"
            )
        return self.projection

    def _check_prepared(self) -> None:
        if not self.prepared:
            raise ValueError(
                "hint: the teacher's features are not measured yet; call prepare(batches) first with "
                "(student, teacher) tensors of training crops, or load the state of a prepared run"
            )


def batch_normalised(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each channel less its mean over images and positions, over its standard deviation there."""
    centred = features - features.mean((0, 2, 3), keepdim=True)
    variance: Tensor = centred.square().mean((0, 2, 3), keepdim=True)
    return centred * (variance + _EPS).rsqrt()


def log_difference(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"]
) -> Float[Tensor, ""]:
    """2 log Σ |student - teacher|⁴, without gradient where the two differ by less than 1e-4.

    Towards equality the gradient of the logarithm grows as one over the difference.
    """
    total = (student - teacher).pow(_POWER).sum()
    return 2 * total.clamp_min(_LEAST**_POWER * student.numel()).log()


def _per_channel(values: Float[Tensor, " c"]) -> Float[Tensor, "c 1 1"]:
    return values[:, None, None]
