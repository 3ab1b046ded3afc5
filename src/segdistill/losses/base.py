"""What every loss has in common: precision, joints with the distiller, checks at the door."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from segdistill.geometry import Cells
from segdistill.labels import IGNORED


class Loss(nn.Module):
    """A number from a student tensor, perhaps a teacher tensor, perhaps labels.

    A loss knows no weight, no layer, no network and no logger of values. Its `forward` takes, by
    these names and only where it needs them, `student`, `teacher` (feature maps or logits, `b c h
    w`) and `labels` (integer ids, `b h w` at the size of the label images, 255 ignored; a loss
    samples them at its own grid). The names are read from the signature when a method is built.

    Every loss promises that:

    - it is computed with autocast off and in at least float32 (half types are converted, float64
      is kept), and labels of any integer type count as int64;
    - where nothing is valid (all pixels ignored, no class present) it is a finite zero with a zero
      gradient, not NaN;
    - no gradient reaches the teacher;
    - it is NaN where a tensor that it is given holds NaN or +inf, also where the maths would hide that;
    - the value of a batch that is split is that of the whole, weighed by `denominator`, unless
      `statistic` names what is taken over a part.

    Attributes:
        matches_channels: the loss compares channel with channel; a student of another width is
            projected to the teacher's before it is passed in.
        matches_grid: the loss compares cell with cell; maps of different height or width are
            brought to common cells before they are passed in.
        projects: the loss makes that projection itself, in `build`, because a released form
            uses more than a convolution; the student is passed in at its own width.
        least_images: images that a batch needs, or each part of one that is split.
        wants_class_pixels: the loss weighs classes by how often they occur: whoever trains calls
            `count_classes` before the first step.
        averages_ignored: the loss reads labels, and an image whose pixels are all ignored counts as a
            zero in its mean, as in some published forms; otherwise such an image changes no value.
        forms: the forms that exist, `default` (ours) first, then the published ones that differ.
            A loss with more than one takes `form=` and hands it to this constructor.
        form: the form that was asked for.
        cells: where the cells of the student's tensor lie on the images, and of the teacher's, or of
            the student's alone. Whoever runs the networks sets it before `build` and before each
            call; None where nobody knows, or where the rules of released codes are asked for.

    A loss that trains a network *against* the student keeps it as `self.adversary`
    (`adversary.py`), which the training loop updates in a step of its own. Most losses have none.

    Args:
        form: one of `forms`.

    Raises:
        ValueError: for an unknown form; the message lists the known ones.
    """

    matches_channels: ClassVar[bool] = False
    matches_grid: ClassVar[bool] = False
    projects: bool = False
    least_images: int = 1
    wants_class_pixels: bool = False
    averages_ignored: bool = False
    forms: ClassVar[tuple[str, ...]] = ("default",)
    cells: tuple[Cells, ...] | None = None

    def __init__(self, form: str = "default") -> None:
        super().__init__()
        if form not in self.forms:
            raise ValueError(f"form is {form!r}; expected {alternatives(self.forms)}")
        self.form = form

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        tensors = [value for value in (*inputs, *named.values()) if isinstance(value, Tensor)]
        device = tensors[0].device.type if tensors else "cpu"
        with torch.autocast(device, enabled=False):
            value = super().__call__(
                *(_raised(value) for value in inputs),
                **{name: _raised(value) for name, value in named.items()},
            )
        return nan_where_broken(value, tensors) if isinstance(value, Tensor) else value

    def build(self, student_shape: torch.Size, teacher_shape: torch.Size | None) -> None:
        """Create the modules that depend on the sizes of the tapped tensors. Most losses have none.

        Args:
            student_shape: `b c h w` of the student's tensor, after any alignment.
            teacher_shape: the same for the teacher; None where there is no teacher.
        """

    def prepare(self, batches: Sequence[tuple[Tensor, Tensor | None]]) -> dict[str, float]:
        """Fit what the first step needs to the frozen teacher. Most losses do nothing.

        Args:
            batches: (student, teacher) tensors of the tap on training crops, both networks in
                `eval` mode and without gradient.

        Returns:
            Metrics to record, by name; none by default.
        """
        return {}

    def count_classes(self, pixels: Int64[Tensor, " k"]) -> None:
        """Take the number of pixels of each class in the training labels. Most losses have no use for it."""

    @property
    def statistic(self) -> str:
        """The statistic of its batch that the value depends on; empty where parts of a batch add up.

        The value of a batch that is split (`train.accumulate`, several processes) is the parts'
        values, weighed by `denominator`. That is exact but for a loss with such a statistic, which
        is then of each part.
        """
        return ""

    def denominator(
        self,
        labels: Int64[Tensor, "b hl wl"],
        student_shape: torch.Size,
        teacher_shape: torch.Size | None,
    ) -> Tensor | None:
        """What the value of a batch is divided by; the number of images, unless a loss says otherwise.

        It is asked before the networks run, so it follows from labels and shapes.

        Args:
            labels: ids as `forward` is given them, 255 ignored.
            student_shape: `b c h w` of the student's tensor, after any alignment.
            teacher_shape: the same for the teacher; None where there is no teacher.

        Returns:
            A number; None for a sum over images that is divided by nothing that grows with them.
        """
        return torch.full((), float(len(labels)), device=labels.device)


def raised(tensor: Tensor) -> Tensor:
    """Half types converted to float32; any other type, including labels, unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def precise(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """In float64 where the device supports it; Apple's GPUs do not, there in float32."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def _raised(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    kept = value.is_floating_point() or value.is_complex() or value.dtype is torch.bool
    return raised(value) if kept else value.long()


def nan_where_broken(value: Tensor, tensors: Iterable[Tensor]) -> Tensor:
    """The value, or NaN where one of the tensors it is made of holds NaN or +inf.

    A comparison is false for NaN, so a `where` or a clamped norm would give a finite number that is wrong. -inf is
    left alone: it is the logit of a class that cannot be.
    """
    if not value.is_floating_point():
        return value
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            # Not isfinite, which is 30 times slower on a CPU, nor a sum, which may overflow.
            value = torch.where(tensor.detach().amax() < torch.inf, value, torch.nan)
    return value


def attached_zero(student: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """A zero attached to the student's graph, so that `backward` works and gives zeros."""
    # Multiplied before it is summed: the sum of a large map may overflow, and inf * 0 is NaN.
    return (student * 0).sum()


def check_pair(
    name: str,
    student: Float[Tensor, "b cs hs ws"],
    teacher: Float[Tensor, "b2 ct ht wt"],
    *,
    channels: bool = False,
    grid: bool = False,
) -> None:
    """Refuse tensors that cannot be compared.

    Args:
        name: the loss, for the message.
        student: the student's tensor.
        teacher: the teacher's tensor.
        channels: both must have the same number of channels.
        grid: both must have the same height and width.

    Raises:
        ValueError: naming both sizes and the remedy.
    """
    here, there = tuple(student.shape), tuple(teacher.shape)
    if here[0] != there[0]:
        raise ValueError(
            f"{name}: the student has {here[0]} images; expected the teacher's {there[0]}. "
            "Run both networks on the same batch"
        )
    if channels and here[1] != there[1]:
        raise ValueError(
            f"{name}: the student has {here[1]} channels; expected the teacher's {there[1]}. "
            "Project the student first (a 1x1 convolution)"
        )
    if grid and here[2:] != there[2:]:
        raise ValueError(
            f"{name}: the student's grid is {here[2]}x{here[3]}; expected the teacher's "
            f"{there[2]}x{there[3]}. Resize one of them first"
        )


def check_labels(
    name: str,
    student: Float[Tensor, "b c h w"],
    labels: Shaped[Tensor, "..."],
    *,
    logits: bool = False,
) -> None:
    """Refuse anything but one map of integer ids per image.

    Ids are only looked at on a CPU, as a GPU would have to be waited for.

    Args:
        name: the loss, for the message.
        student: the student's tensor.
        labels: the ids.
        logits: the student's tensor has a channel per class.

    Raises:
        ValueError: naming the dtype and shape, or the id, and what was expected.
    """
    if labels.ndim != 3 or labels.shape[0] != student.shape[0] or labels.is_floating_point():
        raise ValueError(
            f"{name}: labels are {labels.dtype} of shape {tuple(labels.shape)}; expected integers "
            f"of shape ({student.shape[0]}, height, width), one label map per image"
        )
    if labels.device.type == "cpu" and labels.numel():
        most = student.shape[1] if logits else IGNORED
        bad = labels[(labels < 0) | ((labels >= most) & (labels != IGNORED))]
        if bad.numel():
            raise ValueError(
                f"{name}: label id is {int(bad[0])}; expected 0..{most - 1}, or {IGNORED} for ignored. Map the ids"
            )


def alternatives(known: Iterable[str]) -> str:
    """The names as a message lists them: `a`, `a or b`, `a, b or c`."""
    *others, last = known
    return f"{', '.join(others)} or {last}" if others else last


def one_of(name: str, option: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if the option of a loss allows it.

    Raises:
        ValueError: listing the allowed values.
    """
    known = list(known)
    if value not in known:
        raise ValueError(f"{name}: {option} is {value!r}; expected {alternatives(known)}")
    return value


def positive(name: str, option: str, value: float | int) -> float:
    """Return `value` as a float if it is positive.

    Raises:
        ValueError: naming the loss, the option and the value.
    """
    if not value > 0:
        raise ValueError(f"{name}: {option} is {value}; expected a positive number")
    return float(value)


def not_negative(name: str, option: str, value: float | int) -> float:
    """Return `value` as a float if it is 0 or above.

    Raises:
        ValueError: naming the loss, the option and the value.
    """
    if not value >= 0:
        raise ValueError(f"{name}: {option} is {value}; expected 0 (off) or a positive number")
    return float(value)
