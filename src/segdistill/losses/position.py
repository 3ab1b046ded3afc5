"""Position information distillation (PIDM): features tell the place as the teacher's do."""

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.losses.base import Loss, attached_zero, check_pair, chosen, raised
from segdistill.losses.readout import Readout, chance_error, fit_readout, new_readout, ramps, score
from segdistill.losses.ridge import RidgeMap

logger = logging.getLogger(__name__)

_FORMS = {"default": "fit", "paper": "free"}
_AXES = ("x", "y")
_LEAST_R2 = 0.2
_LEAST_HEADROOM = 0.05


class PositionInformation(Loss):
    """Mean squared difference between the coordinate masks that one readout sees in both networks.

    Zhang et al., "Distilling Inter-Class Distance for Semantic Segmentation" (IJCAI 2022), eq. 4-5,
    after Islam et al., "How Much Position Information Do Convolutional Neural Networks Encode?"
    (ICLR 2020). A position network, trained beforehand and frozen, turns a feature map into two
    masks in 0..1, abscissa (x) and ordinate (y); student and teacher pass through the *same*
    network, and the masks are compared. The readout is Islam's: a 3x3 convolution without padding
    (zeros at the border would draw the place by themselves), batch normalisation, sigmoid.
    `prepare` fits it on the teacher's features against the ramps (i + 1) / (h - 1) of the inner
    cells i = 0 .. h - 3, in the frame of the crop, then freezes it. The value is the mean over
    images, both masks and all inner cells: eq. 5 read as squared Euclidean distance of columns
    (rows), divided by the number of cells.

    No code was released and the text does not say how a student of another width enters "this
    network":

    | `align` | what the student passes through |
    | --- | --- |
    | `fit` (`form="default"`) | a 1x1 map A, least squares of features, held constant |
    | `free` (`form="paper"`) | a 1x1 convolution trained with the student |
    | `logits` | nothing: both networks are read at their logits, standardised over the classes |

    The readout's kernel has full row rank, so a *free* map in front of it can stand for any kernel:
    it absorbs most of the term, and only what the features already tell linearly is asked of the
    student. The A of `fit` is not trained by the optimiser and knows nothing of the masks: it is
    the ridge regression of teacher on student features from running second moments E[s sᵀ], E[t
    sᵀ], solved in closed form at each step, before that step's features enter the moments. Gradient
    reaches the student's features alone. The moments are buffers, so a resumed run goes on from the
    same map, and processes whose buffers are synchronised share it.

    `target="ramp"` is the control: no teacher; a readout trained with the student regresses the
    ramps themselves. A gain of the distilled term over this one is the teacher's doing.

    Maps under 3x3 have no inner cell: the loss is zero.

    Args:
        form: `default` (align `fit`) or `paper` (align `free`).
        align: `fit`, `free` or `logits`; None: as the form says.
        target: `teacher` or `ramp`.
        steps: steps of Adam that fit the readout.
        momentum: share of the running moments that each step renews.
        ridge: regularisation of A, as a share of the student's mean square feature.
        seed: of the readout's start and of its order of batches. Torch's global generator is
            neither read nor moved.

    Raises:
        ValueError: for an unknown form, align or target.
    """

    matches_grid = True
    forms = tuple(_FORMS)

    axes: Tensor
    prepared: Tensor

    def __init__(
        self,
        form: str = "default",
        align: str | None = None,
        target: str = "teacher",
        steps: int = 300,
        momentum: float | int = 0.05,
        ridge: float | int = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(form)
        self.align = chosen("position", "align", align or _FORMS[form], ["fit", "free", "logits"])
        self.target = chosen("position", "target", target, ["teacher", "ramp"])
        self.steps, self.momentum, self.ridge, self.seed = steps, momentum, ridge, seed
        self.readout: Readout | None = None
        self.adapter: nn.Conv2d | RidgeMap | None = None
        self.register_buffer("axes", torch.ones(2))
        self.register_buffer("prepared", torch.tensor(0))

    @property
    def wants_preparation(self) -> bool:
        """Whether there is a readout to fit before the first step: not where it is trained on the way."""
        return self.target == "teacher"

    def build(self, student_shape: torch.Size, teacher_shape: torch.Size | None) -> None:
        width = student_shape[1]
        if self.target == "ramp":
            self.readout = new_readout(width, self.seed)
            return
        if teacher_shape is None:
            raise ValueError(
                "position needs a teacher, but there is none; give one or take target=ramp"
            )
        teacher_width = teacher_shape[1]
        self.readout = new_readout(teacher_width, self.seed).eval().requires_grad_(False)
        if self.align == "logits" and width != teacher_width:
            raise ValueError(
                "position with align=logits reads both networks at their logits, but the student "
                f"has {width} channels and the teacher {teacher_width}; tap the logits or take "
                "align=fit"
            )
        if self.align == "free":
            self.adapter = _new_adapter(width, teacher_width, self.seed)
        if self.align == "fit":
            self.adapter = RidgeMap(width, teacher_width, self.momentum, self.ridge)

    @torch.no_grad()
    def prepare(self, batches: Sequence[tuple[Tensor, Tensor | None]]) -> dict[str, float]:
        """Fit the readout to the teacher's features, freeze it, and measure what there is to teach.

        The last quarter of the batches is held out. R² of an axis is 1 - (squared error / variance
        of the ramp) of the fitted readout there: 1 where the place can be read off, 0 at chance.
        The student's R² is that of a readout of its own, fitted on its features in the same way, so
        that the two differ by the features alone; the headroom is the teacher's less the student's.

        Args:
            batches: (student, teacher) tensors of the tap.

        Returns:
            `r2_teacher_x`, `r2_teacher_y`, `r2_student_x`, `r2_student_y`, `headroom_x`,
            `headroom_y`, `readout_mse` (of the teacher's masks) and `chance_mse` (of the best
            constant), both means over the two axes. Nothing under `target="ramp"`.

        Raises:
            ValueError: before `build`, without batches, or for maps under 4x4, where no axis
                varies.
        """
        if self.target == "ramp":
            return {}
        readout = self._built()
        pairs = [
            (self._seen(student), self._seen(teacher)) for student, teacher in _checked(batches)
        ]
        fitting, held_out = _split(pairs)
        self.to(pairs[0][0].device)
        with torch.autocast(pairs[0][0].device.type, enabled=False):
            fitted = fit_readout([teacher for _, teacher in fitting], self.steps, self.seed)
            probe = fit_readout([student for student, _ in fitting], self.steps, self.seed)
            readout.load_state_dict(fitted.state_dict())
            r2_teacher, error = score(fitted, [teacher for _, teacher in held_out])
            r2_student, _ = score(probe, [student for student, _ in held_out])
            if isinstance(self.adapter, RidgeMap):
                self.adapter.fill(pairs)
        self.axes.copy_(torch.tensor([float(r2 >= _LEAST_R2) for r2 in r2_teacher]))
        self.prepared.fill_(1)
        headroom = [t - s for t, s in zip(r2_teacher, r2_student, strict=True)]
        _warn(r2_teacher, headroom)
        return {
            **{f"r2_teacher_{axis}": r2 for axis, r2 in zip(_AXES, r2_teacher, strict=True)},
            **{f"r2_student_{axis}": r2 for axis, r2 in zip(_AXES, r2_student, strict=True)},
            **{f"headroom_{axis}": gap for axis, gap in zip(_AXES, headroom, strict=True)},
            "readout_mse": error,
            "chance_mse": chance_error([teacher for _, teacher in held_out]),
        }

    def train(self, mode: bool = True) -> "PositionInformation":
        super().train(mode)
        if self.target == "teacher" and self.readout is not None:
            # Batch statistics would let the student's own mean into the masks.
            self.readout.eval()
        return self

    def forward(
        self,
        student: Float[Tensor, "b cs hs ws"],
        teacher: Float[Tensor, "bt ct ht wt"] | None = None,
    ) -> Float[Tensor, ""]:
        readout = self._built()
        cells = student.shape[0] * max(student.shape[2] - 2, 0) * max(student.shape[3] - 2, 0)
        if self.target == "ramp":
            # Batch statistics need two cells.
            if cells < 2:
                return attached_zero(student)
            return mask_difference(readout(student), ramps(student), self.axes)
        if teacher is None:
            raise ValueError(
                "position compares with a teacher, but got none; hand one in or take target=ramp"
            )
        check_pair("position", student, teacher, grid=True)
        self._check_prepared()
        if cells == 0:
            return attached_zero(student)
        with torch.no_grad():
            target = readout(self._seen(teacher))
        loss = mask_difference(readout(self._aligned(student)), target, self.axes)
        if self.training and isinstance(self.adapter, RidgeMap):
            self.adapter.renew(student.detach(), teacher.detach())
        return loss

    def masks(
        self, features: Float[Tensor, "b c h w"], side: str
    ) -> tuple[Float[Tensor, "b hi wi"], Float[Tensor, "b hi wi"]]:
        """The abscissa and ordinate masks that the readout sees in a feature map, for a report.

        Args:
            features: the tapped tensor, at least 3x3.
            side: `student` or `teacher`: whose tensor it is.

        Returns:
            The x mask and the y mask, in 0..1, at the (h - 2) x (w - 2) inner cells.

        Raises:
            ValueError: before `build` and `prepare`, for an unknown side, or for the teacher's
                under `target="ramp"`.
        """
        readout = self._built()
        sides = ["student", "teacher"] if self.target == "teacher" else ["student"]
        chosen("position", "side", side, sides)
        with torch.autocast(features.device.type, enabled=False):
            seen = raised(features)
            if self.target == "teacher":
                self._check_prepared()
                seen = self._aligned(seen) if side == "student" else self._seen(seen)
            both = readout(seen)
        return both[:, 0], both[:, 1]

    def _aligned(self, student: Tensor) -> Tensor:
        if self.adapter is None:
            return self._seen(student)
        adapted: Tensor = self.adapter(student)
        return adapted

    def _seen(self, features: Tensor) -> Tensor:
        features = raised(features)
        return standardised(features) if self.align == "logits" else features

    def _built(self) -> Readout:
        if self.readout is None:
            raise ValueError(
                "position has no readout yet; call build(student_shape, teacher_shape) first"
            )
        return self.readout

    def _check_prepared(self) -> None:
        if not self.prepared:
            raise ValueError(
                "position's readout is not fitted yet; call prepare(batches) with (student, "
                "teacher) tensors of training crops first, or load the state of a prepared run"
            )


def mask_difference(
    student: Float[Tensor, "b 2 h w"],
    target: Float[Tensor, "#b 2 h w"],
    axes: Float[Tensor, "2"],
) -> Float[Tensor, ""]:
    """Mean squared difference of both masks; an axis that is switched off (0) counts as zero."""
    return ((student - target) ** 2).mean((0, 2, 3)) @ axes.to(student) / 2


def standardised(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """Logits less their mean over the classes, over their standard deviation, at each position.

    Softmax ignores a common shift, so raw logits would leave a free channel in which to store the
    place.
    """
    centred = logits - logits.mean(1, keepdim=True)
    spread: Tensor = (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
    return centred * spread


def _new_adapter(width: int, teacher_width: int, seed: int) -> nn.Conv2d:
    # Made without numbers: torch's own initialisation would draw from the global generator.
    adapter = nn.Conv2d(width, teacher_width, 1, bias=False, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    nn.init.kaiming_uniform_(adapter.weight, a=5**0.5, generator=generator)
    return adapter


def _checked(batches: Sequence[tuple[Tensor, Tensor | None]]) -> list[tuple[Tensor, Tensor]]:
    pairs = [(student, teacher) for student, teacher in batches if teacher is not None]
    if not pairs:
        raise ValueError(
            "position.prepare got no teacher features; give at least one (student, teacher) batch"
        )
    for student, teacher in pairs:
        check_pair("position", student, teacher, grid=True)
        if min(student.shape[2:]) < 4:
            raise ValueError(
                f"position needs feature maps of at least 4x4, but got {student.shape[2]}x"
                f"{student.shape[3]}; take larger crops"
            )
    return pairs


def _split(
    pairs: list[tuple[Tensor, Tensor]],
) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Batches to fit on and the last quarter to measure on; a single batch is split by images."""
    if len(pairs) == 1:
        student, teacher = pairs[0]
        if len(student) == 1:
            logger.warning("position: one image only; the readout is measured where it was fitted")
            return pairs, pairs
        pairs = [(student[i : i + 1], teacher[i : i + 1]) for i in range(len(student))]
    held = max(1, len(pairs) // 4)
    return pairs[:-held], pairs[-held:]


def _warn(r2_teacher: Sequence[float], headroom: Sequence[float]) -> None:
    for axis, r2 in zip(_AXES, r2_teacher, strict=True):
        if r2 < _LEAST_R2:
            logger.warning(
                "position: the teacher's features do not tell %s (R² %.2f on held-out images, "
                "below %.2f); this axis is switched off",
                axis,
                r2,
                _LEAST_R2,
            )
    if max(headroom) < _LEAST_HEADROOM:
        logger.warning(
            "position: nothing to teach at the start: the student tells the place as well as the teacher "
            "already (headroom %.2f in x, %.2f in y, below %.2f)",
            *headroom,
            _LEAST_HEADROOM,
        )
