"""Position information distillation (PIDM): features encode position as the teacher's do."""

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.geometry import Cells
from segdistill.losses.base import Loss, attached_zero, check_pair, one_of, raised
from segdistill.losses.readout import Readout, chance_error, fit_readout, new_readout, ramps, score
from segdistill.losses.ridge import RidgeMap

logger = logging.getLogger(__name__)

_FORMS = {"default": ("fit", "headroom"), "paper": ("free", "unreadable")}
_AXES = ("x", "y")
_TARGETS = ["teacher", "averaged", "shuffled", "ramp"]
_RULES = ["headroom", "unreadable", "never"]
_LEAST_R2 = 0.2
_LEAST_HEADROOM = 0.05


class PositionInformation(Loss):
    """Mean squared difference between the coordinate masks that one readout sees in both networks.

    Zhang et al., "Distilling Inter-Class Distance for Semantic Segmentation" (IJCAI 2022,
    https://arxiv.org/abs/2205.03650), eq. 4-5, after Islam et al., "How Much Position Information
    Do Convolutional Neural Networks Encode?" (ICLR 2020, https://arxiv.org/abs/2001.08248). A
    position network, trained beforehand and frozen, turns a feature map into two masks in 0..1,
    abscissa (x) and ordinate (y); student and teacher pass through the *same* network, and the
    masks are compared. The readout is Islam's: a 3x3 convolution without padding (zeros at the
    border would reveal the position by themselves), batch normalisation, sigmoid. `prepare` fits it
    on the teacher's features against the position in the crop, 0..1, of the inner cells (where the
    networks say that they lie, `cells`; else corners on corners, (i + 1) / (h - 1) for i = 0 .. h -
    3), then freezes it. The value is the mean over images, both masks and all
    inner cells: eq. 5 read as squared Euclidean distance of columns (rows), divided by the number
    of cells.

    No code was released and the text does not say how a student of another width enters "this
    network":

    | `align` | what the student passes through |
    | --- | --- |
    | `fit` (`form="default"`) | a 1x1 map A, least squares of features, held constant |
    | `free` (`form="paper"`) | a 1x1 convolution trained with the student |
    | `logits` | nothing: both networks are read at their logits, standardised over the classes |

    The readout's kernel has full row rank, so a *free* map in front of it can stand for any kernel:
    it absorbs most of the term, which then asks only for what the student's features already encode
    linearly. The A of `fit` is not trained by the optimizer and does not depend on the masks: it is
    the ridge regression of teacher on student features from running second moments E[s sᵀ], E[t
    sᵀ], solved in closed form at each step, before that step's features enter the moments. Gradient
    reaches only the student's features. The moments are buffers, so a resumed run goes on from the
    same map, and processes whose buffers are synchronised share it. Where a batch is split
    (`train.accumulate`), each part renews them; over several processes they are the first one's.

    Where there is nothing to teach, `prepare` switches off an axis, or both. What decides is measured
    on held-out images, once, before the first step:

    | `switch_off` | an axis is switched off if |
    | --- | --- |
    | `headroom` (`form="default"`) | the teacher's R² is below 0.2, or not 0.05 above that of the student's start |
    | `unreadable` (`form="paper"`) | the teacher's R² is below 0.2 |
    | `never` | never |

    With both switched off the loss is 0 and costs nothing.

    Three placebos tell whether a gain is due to what the teacher's features say of an image:

    | `target` | the student's masks are compared with |
    | --- | --- |
    | `teacher` | the teacher's masks of the same image |
    | `averaged` | the mean of the teacher's masks over the batch |
    | `shuffled` | the teacher's masks of the image before it in the batch, the last one's for the first |
    | `ramp` | the ramps themselves, without a teacher, through a readout trained with the student |

    `averaged` and `shuffled` keep readout, map and axes of the term itself. They need two images in a
    batch, and take them from the part where a batch is split (`train.accumulate`, several processes).
    `ramp` teaches both axes, whatever `switch_off` says.

    Maps under 3x3 have no inner cell: the loss is zero.

    Args:
        form: `default` (align `fit`) or `paper` (align `free`).
        align: `fit`, `free` or `logits`; None: that of the form.
        target: `teacher`, or the placebos `averaged`, `shuffled` and `ramp`.
        switch_off: `headroom`, `unreadable` or `never`; None: that of the form.
        steps: Adam steps that fit the readout.
        momentum: fraction of the running moments replaced at each step.
        ridge: regularisation of A, as a fraction of the student's mean square feature.
        seed: of the readout's initial weights and of its order of batches. Torch's global
            generator is neither read nor advanced.

    Raises:
        ValueError: for an unknown form, align, target or switch_off.
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
        switch_off: str | None = None,
        steps: int = 300,
        momentum: float | int = 0.05,
        ridge: float | int = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(form)
        preset = _FORMS[form]
        self.align = one_of("position", "align", align or preset[0], ["fit", "free", "logits"])
        self.switch_off = one_of("position", "switch_off", switch_off or preset[1], _RULES)
        self.target = one_of("position", "target", target, _TARGETS)
        self.least_images = 2 if target in ("averaged", "shuffled") else 1
        self.steps, self.momentum, self.ridge, self.seed = steps, momentum, ridge, seed
        self.readout: Readout | None = None
        self.adapter: nn.Conv2d | RidgeMap | None = None
        self.register_buffer("axes", torch.ones(2))
        self.register_buffer("prepared", torch.tensor(0))
        self._off: bool | None = None
        self.register_load_state_dict_post_hook(_ask_again)  # type: ignore[no-untyped-call]

    @property
    def wants_preparation(self) -> bool:
        """Whether there is a readout to fit before the first step: not where it is trained with the student."""
        return self.target != "ramp"

    @property
    def statistic(self) -> str:
        if self.target == "ramp":
            return "batch norm of the readout"
        taken = ["moments of the map"] * (self.align == "fit")
        return " and ".join(taken + ["masks of the batch"] * (self.least_images > 1))

    def build(self, student_shape: torch.Size, teacher_shape: torch.Size | None) -> None:
        width = student_shape[1]
        if self.target == "ramp":
            self.readout = new_readout(width, self.seed)
            return
        if teacher_shape is None:
            raise ValueError(
                "position: the teacher is missing; expected one. Add a teacher, or set target=ramp"
            )
        teacher_width = teacher_shape[1]
        self.readout = new_readout(teacher_width, self.seed).eval().requires_grad_(False)
        if self.align == "logits" and width != teacher_width:
            raise ValueError(
                f"position: with align=logits the student has {width} channels; expected the "
                f"teacher's {teacher_width}. Tap the logits, or use align=fit"
            )
        if self.align == "free":
            self.adapter = _new_adapter(width, teacher_width, self.seed)
        if self.align == "fit":
            self.adapter = RidgeMap(width, teacher_width, self.momentum, self.ridge)

    @torch.no_grad()
    def prepare(self, batches: Sequence[tuple[Tensor, Tensor | None]]) -> dict[str, float]:
        """Fit the readout to the teacher's features, freeze it, and measure how much there is to teach.

        The last quarter of the batches is held out. R² of an axis is 1 - (squared error / variance
        of the ramp) of the fitted readout there: 1 where the position can be read exactly, 0 at
        chance. The student's R² is that of a readout of its own, fitted on its features in the same
        way, so that the two differ only in the features; the headroom is the teacher's less the
        student's. An axis in which there is nothing to teach is switched off by the rule `switch_off`.

        Args:
            batches: (student, teacher) tensors of the tap.

        Returns:
            `r2_teacher_x`, `r2_teacher_y`, `r2_student_x`, `r2_student_y`, `headroom_x`,
            `headroom_y`, `taught_x`, `taught_y` (0 for an axis that is switched off), `readout_mse` (of
            the teacher's masks) and `chance_mse` (of the best constant), both means over the two axes.
            Nothing under `target="ramp"`.

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
            cells = self._place()
            fitted, probe = (
                fit_readout([pair[side] for pair in fitting], self.steps, self.seed, cells=cells)
                for side in (1, 0)
            )
            readout.load_state_dict(fitted.state_dict())
            r2_teacher, error = score(fitted, [teacher for _, teacher in held_out], cells)
            r2_student, _ = score(probe, [student for student, _ in held_out], cells)
            if isinstance(self.adapter, RidgeMap):
                self.adapter.fill(pairs)
        taught = [
            _taught(axis, teacher, student, self.switch_off)
            for axis, teacher, student in zip(_AXES, r2_teacher, r2_student, strict=True)
        ]
        if not any(taught):
            logger.warning("position: no axis is left, so this term is switched off")
        self.axes.copy_(torch.tensor(taught).float())
        self.prepared.fill_(1)
        self._off = None
        headroom = [t - s for t, s in zip(r2_teacher, r2_student, strict=True)]
        return {
            **{f"r2_teacher_{axis}": r2 for axis, r2 in zip(_AXES, r2_teacher, strict=True)},
            **{f"r2_student_{axis}": r2 for axis, r2 in zip(_AXES, r2_student, strict=True)},
            **{f"headroom_{axis}": gap for axis, gap in zip(_AXES, headroom, strict=True)},
            **{f"taught_{axis}": float(on) for axis, on in zip(_AXES, taught, strict=True)},
            "readout_mse": error,
            "chance_mse": chance_error([teacher for _, teacher in held_out], cells),
        }

    def train(self, mode: bool = True) -> "PositionInformation":
        super().train(mode)
        if self.target != "ramp" and self.readout is not None:
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
            return mask_difference(readout(student), ramps(student, self._place()), self.axes)
        if teacher is None:
            raise ValueError(
                "position: teacher is None; expected the teacher's tensor. Pass it, or set target=ramp"
            )
        check_pair("position", student, teacher, grid=True)
        self._check_prepared()
        if cells == 0 or self._is_off():
            return attached_zero(student)
        with torch.no_grad():
            target = self._chosen(readout(self._seen(teacher)))
        masks = readout(self._seen(student), self._student_kernel())
        loss = mask_difference(masks, target, self.axes)
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
        sides = ["student"] if self.target == "ramp" else ["student", "teacher"]
        one_of("position", "side", side, sides)
        with torch.autocast(features.device.type, enabled=False):
            if self.target == "ramp":
                both = readout(raised(features))
            else:
                self._check_prepared()
                kernel = self._student_kernel() if side == "student" else None
                both = readout(self._seen(features), kernel)
        return both[:, 0], both[:, 1]

    def _chosen(self, masks: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "#b 2 h w"]:
        """What the student's masks are compared with, of the teacher's."""
        if len(masks) < self.least_images:
            raise ValueError(
                f"position: target is {self.target} and the batch holds 1 image; expected 2 or more, as "
                "masks of other images are used. Use larger batches"
            )
        if self.target == "averaged":
            return masks.mean(0, keepdim=True)
        return masks.roll(1, 0) if self.target == "shuffled" else masks

    @property
    def switched_off(self) -> bool:
        """Whether no axis is taught, as was logged before step 1."""
        return self.target != "ramp" and self._is_off()

    def _is_off(self) -> bool:
        """Whether both axes are switched off; asked once, as reading a buffer makes a GPU wait."""
        if self._off is None:
            self._off = not bool(self.axes.any())
        return self._off

    def _student_kernel(self) -> Float[Tensor, "2 cs 3 3"] | None:
        """The readout's kernel with the map folded in: W∘A on s is W on A s, at a fraction of the work."""
        kernel = self._built().conv.weight
        if isinstance(self.adapter, RidgeMap):
            return self.adapter.folded(kernel)
        if self.adapter is None:
            return None
        return torch.einsum("otij,ts->osij", kernel, self.adapter.weight[:, :, 0, 0])

    def _seen(self, features: Tensor) -> Tensor:
        features = raised(features)
        return standardised(features) if self.align == "logits" else features

    def _place(self) -> Cells | None:
        return None if self.cells is None else self.cells[0]

    def _built(self) -> Readout:
        if self.readout is None:
            raise ValueError(
                "position: there is no readout yet; call build(student_shape, teacher_shape) first"
            )
        return self.readout

    def _check_prepared(self) -> None:
        if not self.prepared:
            raise ValueError(
                "position: the readout is not fitted yet; call prepare(batches) first with (student, "
                "teacher) tensors of training crops, or load the state of a prepared run"
            )


def mask_difference(
    student: Float[Tensor, "b 2 h w"],
    target: Float[Tensor, "#b 2 h w"],
    axes: Float[Tensor, "2"],
) -> Float[Tensor, ""]:
    """Mean squared difference of both masks; a disabled axis (0) counts as zero."""
    return ((student - target) ** 2).mean((0, 2, 3)) @ axes.to(student) / 2


def standardised(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """Logits less their mean over the classes, over their standard deviation, at each position.

    Softmax ignores a common shift, so raw logits would leave a free channel that could store the
    position.
    """
    centred = logits - logits.mean(1, keepdim=True)
    spread: Tensor = (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
    return centred * spread


def _new_adapter(width: int, teacher_width: int, seed: int) -> nn.Conv2d:
    # Created without values: torch's own initialisation would draw from the global generator.
    adapter = nn.Conv2d(width, teacher_width, 1, bias=False, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    nn.init.kaiming_uniform_(adapter.weight, a=5**0.5, generator=generator)
    return adapter


def _checked(batches: Sequence[tuple[Tensor, Tensor | None]]) -> list[tuple[Tensor, Tensor]]:
    pairs = [(student, teacher) for student, teacher in batches if teacher is not None]
    if not pairs:
        raise ValueError(
            "position: batches hold no teacher features; expected at least one (student, teacher) pair"
        )
    for student, teacher in pairs:
        check_pair("position", student, teacher, grid=True)
        if min(student.shape[2:]) < 4:
            raise ValueError(
                f"position: the feature maps are {student.shape[2]}x{student.shape[3]}; expected at "
                "least 4x4. Use larger crops"
            )
    return pairs


def _split(
    pairs: list[tuple[Tensor, Tensor]],
) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Batches to fit on and the last quarter to measure on; a single batch is split by images."""
    if len(pairs) == 1:
        student, teacher = pairs[0]
        if len(student) == 1:
            logger.warning(
                "position: only one image; the readout is scored on the image it was fitted to"
            )
            return pairs, pairs
        pairs = [(student[i : i + 1], teacher[i : i + 1]) for i in range(len(student))]
    held = max(1, len(pairs) // 4)
    return pairs[:-held], pairs[-held:]


def _taught(axis: str, teacher: float, student: float, rule: str) -> bool:
    """Whether an axis is taught, by R² on held-out images; the log says where there is nothing to teach."""
    if teacher < _LEAST_R2:
        taught = rule == "never"
        logger.warning(
            "position: the teacher's features do not encode %s (R² %.2f on held-out images, below "
            "%.2f); this axis is %s",
            axis,
            teacher,
            _LEAST_R2,
            _fate(taught, rule),
        )
        return taught
    if teacher - student < _LEAST_HEADROOM:
        taught = rule != "headroom"
        logger.warning(
            "position: nothing to teach in %s: on held-out images R² is %.2f for the teacher and %.2f "
            "for the student's start (headroom %.2f, below %.2f); this axis is %s",
            axis,
            teacher,
            student,
            teacher - student,
            _LEAST_HEADROOM,
            _fate(taught, rule),
        )
        return taught
    return True


def _fate(taught: bool, rule: str) -> str:
    return f"kept (switch_off: {rule})" if taught else "disabled. switch_off: never keeps it"


def _ask_again(loss: PositionInformation, _keys: object) -> None:
    loss._off = None
