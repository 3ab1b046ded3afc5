"""Runs teacher and student with their taps open and passes the tensors to the method's terms."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segdistill.distillation.alignment import Alignment, CellPair, Once
from segdistill.distillation.fractions import weighed
from segdistill.distillation.method import Method, Term
from segdistill.distillation.taps import Taps, tap_paths, uncompiled
from segdistill.geometry import Cells, check_cells, declaration, tap_cells, to_pixels
from segdistill.labels import IGNORED
from segdistill.losses.base import Loss, nan_where_broken, raised
from segdistill.losses.pixelwise import PixelwiseKD, confident
from segdistill.names import unknown

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TapRow:
    """One line of the tap table: what a term reads, and what is done to it."""

    term: str
    tap: str
    student: tuple[int, ...]
    teacher: tuple[int, ...] | None
    alignment: str


class Distiller(nn.Module):
    """The student and the modules its losses own; the teacher is no part of the module.

    The teacher is kept out of parameters() and of the state, permanently in eval mode and under
    `no_grad`: a training loop can set up, wrap, move and save this module like any other. `forward` gives the
    *unweighted* value of each term; `method.total` weighs and sums them.

    With `labels="teacher"` every term that learns from labels gets the teacher's instead: the class
    of its largest logit at each pixel, with logits brought to the pixels from where the teacher's
    cells lie. They are hard labels, right or wrong, and the padding of a crop that extends beyond its
    image gets a class as well. With `labels="both"` images without labels get the teacher's, and the
    others keep their own. `confidence` ignores a pixel where the teacher's probability of its
    class is lower; labels of the data are never ignored. The values of the terms are still divided by
    what they would count if no pixel were ignored (UniMatch V2, https://arxiv.org/abs/2410.10777), so
    that few sure pixels weigh little. `pixelwise` has a gate of the same meaning on its own grid.

    Where the cells of a tap lie on the images follows from what its network declares
    (`segdistill.geometry`), once for all: student and teacher are brought to common cells by it, and
    a loss that has an attribute `cells` is told before each call. A term with `cells="released"`
    knows nothing of it.

    A term that compares logits with the teacher's reads the student's `logits_distilled`, where the
    student has such a tap: ESPNet learns from labels at its output, and from a teacher at stride 8.

    Args:
        student: Network that is trained; it has `taps`, and `align_corners` and `cells` if it has them.
        method: The terms. Terms marked optional whose tap the student lacks are left out.
        teacher: Frozen network, for methods that need one.
        labels: `data`, `teacher` for the teacher's classes in place of the labels, or `both` for the
            teacher's on images without labels.
        confidence: With the teacher's labels, the probability in [0, 1] from which a pixel counts.

    Raises:
        ValueError: A term reads a tap that a network does not have, a network declares `cells` that
            cannot be, the method needs a teacher (or its labels) and none is given, or student and
            teacher share weights.
    """

    def __init__(
        self,
        student: nn.Module,
        method: Method,
        teacher: nn.Module | None = None,
        labels: Literal["data", "teacher", "both"] = "data",
        confidence: float = 0.0,
    ) -> None:
        super().__init__()
        student_paths = tap_paths(student)
        absent = [n for n, t in method.terms.items() if t.optional and t.on not in student_paths]
        self.method = method.without(absent)
        self._student_on = {n: _student_tap(t, student_paths) for n, t in self.method.terms.items()}
        if self.method.needs_teacher and teacher is None:
            raise ValueError(
                f"method {method.name!r} needs a teacher, but none is given; add `teacher` to the recipe"
            )
        self._labels, self._confidence = labels, confidence
        if self._teacher_labels and teacher is None:
            raise ValueError(
                f"method.labels is {labels}, but no teacher is given; add `teacher` to the recipe, or use data"
            )
        self.student = student
        self.losses = nn.ModuleDict({n: t.loss for n, t in self.method.terms.items()})
        self.alignments = nn.ModuleDict()
        self._hidden: list[nn.Module] = []
        self._values: dict[str, Tensor] = {}
        self._gated: dict[str, tuple[Tensor, Tensor]] = {}
        self._size = torch.Size()
        self._shapes: dict[str, tuple[torch.Size, torch.Size | None]] = {}
        for term in self.method.terms.values():
            if getattr(term.loss, "align_corners", False) is None:
                corners = bool(getattr(student, "align_corners", False))
                setattr(term.loss, "align_corners", corners)  # noqa: B010  a plain attribute, no tensor
        _check_declared(student, "student")
        self._student_taps = Taps(student, self._wanted(student_paths, "student"))
        self._teacher_taps: Taps | None = None
        if teacher is not None and self._reads_teacher():
            _check_apart(student, teacher)
            for parameter in teacher.parameters():
                parameter.requires_grad_(False)
            _check_declared(teacher, "teacher")
            self._hidden = [teacher.eval()]
            self._teacher_taps = Taps(teacher, self._wanted(tap_paths(teacher), "teacher"))

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher, or None where no term reads one."""
        return self._hidden[0] if self._hidden else None

    @property
    def _teacher_labels(self) -> bool:
        return self._labels != "data"

    def _reads_teacher(self) -> bool:
        terms = self.method.terms.values()
        return self._teacher_labels or any(_reads_teacher(term) for term in terms)

    def _wanted(self, paths: Mapping[str, str], owner: str) -> dict[str, str]:
        wanted = {}
        if owner == "teacher" and self._teacher_labels:
            if "logits" not in paths:
                raise ValueError(
                    f"method.labels is {self._labels}: the teacher has {unknown('tap', 'logits', paths)}"
                )
            wanted["logits"] = paths["logits"]
        for name, term in self.method.terms.items():
            if owner == "teacher" and not _reads_teacher(term):
                continue
            tap = self._student_on[name] if owner == "student" else term.on
            if tap not in paths:
                raise ValueError(f"term {name!r}: the {owner} has {unknown('tap', tap, paths)}")
            wanted[tap] = paths[tap]
        return wanted

    def to(self, *args: Any, **kwargs: Any) -> "Distiller":
        """Move or cast, the teacher too."""
        for teacher in self._hidden:
            teacher.to(*args, **kwargs)
        super().to(*args, **kwargs)
        return self

    def _run(
        self, images: Tensor, student_images: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        teacher = self._run_teacher(images)
        self.student(images if student_images is None else student_images)
        return self._student_taps.collect(), teacher

    def _run_teacher(self, images: Tensor) -> dict[str, Tensor]:
        if self._teacher_taps is None:
            return {}
        with torch.no_grad():
            self._hidden[0](images)
        return self._teacher_taps.collect()

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        labelled: Tensor | None = None,
        student_images: Tensor | None = None,
        only: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """The unweighted value of each term.

        Args:
            images: RGB in 0..1, `b 3 h w`; what the teacher sees, and the terms that read images.
            labels: Class ids `b h w` at the images' size, 255 ignored; not read where the
                teacher's are used.
            labelled: Which images have labels, `b`; None: those with a pixel that is not ignored.
            student_images: What the student sees, in other colours; None: the images.
            only: Names of the terms to compute; None: all.

        Raises:
            ValueError: A loss has changed one of its arguments in place.
        """
        student, teacher = self._run(images, student_images)
        whole, labels = self._learnt(teacher, images, labels, labelled)
        self._gated = {"labels": (whole, labels)} if self._confidence else {}
        batch = {"images": images, "labels": labels}
        values: dict[str, Tensor] = {}
        once = Once()
        for name, term in self.method.terms.items():
            if only is None or name in only:
                arguments = self._arguments(name, term, student, teacher, batch, once)
                with untouched(name, arguments):
                    values[name] = term.loss(**arguments)
                if isinstance(term.loss, PixelwiseKD) and term.loss.confidence:
                    self._gated[name] = arguments["teacher"], arguments["teacher"]
                if self._teacher_labels and "labels" in arguments:
                    # The largest of logits that are not finite is a class like any other.
                    values[name] = nan_where_broken(values[name], [teacher["logits"]])
                if self._confidence and "labels" in arguments:
                    values[name] = values[name] * _counted(term.loss, arguments, whole)
        # A training framework may add hooks to what it returns, so it gets copies; shares are taken from
        # these.
        self._values = values
        return {name: value.clone() for name, value in values.items()}

    @torch.no_grad()
    def arguments(
        self, images: Tensor, labels: Tensor, names: Collection[str]
    ) -> dict[str, dict[str, Tensor]]:
        """What the losses of some terms are called with; the student in `eval` mode, and without a gradient.

        Args:
            images: As for `forward`.
            labels: As for `forward`.
            names: Names of the terms.

        Returns:
            Term name -> the loss's arguments by name.
        """
        was_training = self.student.training
        self.student.eval()
        student, teacher = self._run(images)
        self.student.train(was_training)
        _, learnt = self._learnt(teacher, images, labels, None)
        batch, once = {"images": images, "labels": learnt}, Once()
        terms = self.method.terms
        return {
            name: self._arguments(name, terms[name], student, teacher, batch, once)
            for name in names
        }

    @torch.no_grad()
    def denominators(
        self, images: Tensor, labels: Tensor, labelled: Tensor | None = None
    ) -> dict[str, Tensor | None]:
        """What the value of each term will be divided by, from labels and shapes alone.

        The parts of a batch are weighed by these (`fractions`). Where the teacher's labels are used, it
        is run for them.

        Args:
            images: As for `forward`, at the size of the dry pass.
            labels: As for `forward`.
            labelled: As for `forward`.

        Returns:
            Term name -> `Loss.denominator`; the number of images for a loss without that method.

        Raises:
            ValueError: The images' size is not that of the dry pass, whose shapes are used.
        """
        if images.shape[-2:] != self._size:
            height, width = images.shape[-2:]
            expected = "x".join(map(str, self._size)) or "that of a dry pass"
            raise ValueError(
                f"the images are {height}x{width}; expected {expected}. Call dry_pass with images of this size"
            )
        if self._teacher_labels:
            # The values are divided by what counts without the gate.
            labels, _ = self._learnt(self._run_teacher(images), images, labels, labelled)
        counted: dict[str, Tensor | None] = {}
        for name, term in self.method.terms.items():
            denominator = getattr(term.loss, "denominator", None)
            if denominator is None:
                counted[name] = torch.full((), float(len(images)), device=labels.device)
            else:
                counted[name] = denominator(labels, *self._shapes[name])
        return counted

    def statistics(self) -> dict[str, str]:
        """The terms whose value depends on a statistic of their batch, and that statistic."""
        found = {n: getattr(t.loss, "statistic", "") for n, t in self.method.terms.items()}
        return {name: statistic for name, statistic in found.items() if statistic}

    def _learnt(
        self, teacher: Mapping[str, Tensor], images: Tensor, labels: Tensor, labelled: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The labels that terms learn from, `b h w`, before the gate and after it."""
        if not self._teacher_labels:
            return labels, labels
        logits = teacher["logits"]
        full = to_pixels(logits.float(), _cells(self._hidden[0], "logits", logits, images))
        # Not argmax, which is slower over an inner axis on a CPU.
        classes = full.max(1).indices
        sure = classes
        if self._confidence:
            sure = classes.masked_fill(~confident(full, self._confidence), IGNORED)
        if self._labels == "teacher":
            return classes, sure
        if labelled is None:
            labelled = (labels != IGNORED).flatten(1).any(1)
        own = labelled.to(labels.device)[:, None, None]
        return torch.where(own, labels, classes), torch.where(own, labels, sure)

    @torch.no_grad()
    def kept(self, labelled: Tensor | None = None) -> dict[str, Tensor]:
        """What the gates of the last `forward` let through: pixels of each class, and those that count.

        Args:
            labelled: Which images have labels, `b`. With `labels="both"` no gate looks at those.

        Returns:
            `labels` for `confidence`, and the name of each term with a gate of its own, such as
            `pixelwise`, by positions of its grid -> counts `255 2`, by the teacher's class.
        """
        counts = {}
        for name, (whole, counted) in self._gated.items():
            if name == "labels":
                classes, passed = whole, counted != IGNORED
                if self._labels == "both" and labelled is not None:
                    classes = classes.masked_fill(
                        labelled.to(classes.device)[:, None, None], IGNORED
                    )
            else:
                loss: Any = self.method.terms[name].loss
                classes, passed = whole.max(1).indices, confident(whole, loss.confidence)
            counts[name] = _by_class(classes, passed)
        return counts

    def _arguments(
        self,
        name: str,
        term: Term,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        once: Once,
    ) -> dict[str, Tensor]:
        tensors = {"student": student[self._student_on[name]], **batch}
        if _reads_teacher(term) and term.on in teacher:
            tensors["teacher"] = teacher[term.on]
        tensors |= self._met(
            name, tensors["student"], tensors.get("teacher"), batch["images"], once
        )
        return {argument: tensors[argument] for argument in term.inputs() if argument in tensors}

    def _met(
        self,
        name: str,
        student: Tensor,
        teacher: Tensor | None,
        images: Tensor,
        once: Once | None = None,
    ) -> dict[str, Tensor]:
        """Both tensors at common cells, where their loss needs that; the loss is told where they lie."""
        loss, once = self.method.terms[name].loss, once or Once()
        if isinstance(loss, Loss):
            # As the loss itself would, but for all terms at once.
            student = once(raised, student)
            teacher = None if teacher is None else once(raised, teacher)
        if teacher is None:
            own = self._declared(name, [student], images)
            _tell(loss, own)
            return {"student": student}
        pair = self._declared(name, [student, teacher], images)
        if name in self.alignments:
            alignment: Any = self.alignments[name]
            student, teacher = alignment(student, teacher, pair, once)
            pair = pair and alignment.common(pair)
        _tell(loss, pair)
        return {"student": student, "teacher": teacher}

    def _declared(self, name: str, tensors: Sequence[Tensor], images: Tensor) -> Any:
        """Where the cells of the tapped tensors lie; None for the rules of released codes, or no maps."""
        term = self.method.terms[name]
        if term.cells == "released" or any(tensor.ndim != 4 for tensor in tensors):
            return None
        owners = [(self.student, self._student_on[name]), *((t, term.on) for t in self._hidden)]
        return tuple(
            _cells(network, tap, tensor, images)
            for (network, tap), tensor in zip(owners, tensors, strict=False)
        )

    def dry_pass(self, images: Tensor) -> list[TapRow]:
        """Run once, build the modules that the losses own, and describe what each term reads.

        Nothing is trained and no running statistic changes. Call it before creating the optimizer.

        Raises:
            ValueError: The networks' logits have different numbers of classes.
        """
        was_training = self.student.training
        self._size = images.shape[-2:]
        self.student.eval()
        with torch.no_grad():
            student, teacher = self._run(images)
        self.student.train(was_training)
        rows = []
        for name, term in self.method.terms.items():
            tap = self._student_on[name]
            own = tuple(student[tap].shape)
            other = tuple(teacher[term.on].shape) if term.on in teacher else None
            what = "none"
            if other is not None and _reads_teacher(term):
                pair = self._declared(name, [student[tap], teacher[term.on]], images)
                what = self._align(name, term, own, other, pair)
            with torch.no_grad():
                met = self._met(name, student[tap], teacher.get(term.on), images)
            there = met["teacher"].shape if "teacher" in met else None
            self._shapes[name] = (met["student"].shape, there)
            build = getattr(term.loss, "build", None)
            if build is not None:
                build(*self._shapes[name])
            rows.append(TapRow(name, tap, own, other if _reads_teacher(term) else None, what))
        return rows

    def _align(
        self,
        name: str,
        term: Term,
        own: tuple[int, ...],
        other: tuple[int, ...],
        cells: CellPair | None,
    ) -> str:
        channels = bool(getattr(term.loss, "matches_channels", True))
        if channels and term.on == "logits" and own[1] != other[1]:
            raise ValueError(
                f"term {name!r}: the student predicts {own[1]} classes; expected the teacher's {other[1]}. "
                "Map them (teacher.labels), or use a teacher trained on the same classes"
            )
        grid = bool(getattr(term.loss, "matches_grid", True))
        projects = bool(getattr(term.loss, "projects", False))
        alignment = Alignment(own[1], other[1], channels=channels and not projects, grid=grid)
        if any(True for _ in alignment.parameters()) or (grid and len(own) == 4):
            self.alignments[name] = alignment
        what = alignment.describe(own, other, cells)
        if projects and own[1] != other[1]:
            what = f"loss's projection {own[1]} -> {other[1]}" + f", {what}" * (what != "none")
        return what

    def terms_to_prepare(self) -> list[str]:
        """Names of the terms whose loss is prepared on the frozen teacher before step 1."""
        base = Loss.prepare
        return [
            name
            for name, term in self.method.terms.items()
            if getattr(type(term.loss), "prepare", base) is not base
            and getattr(term.loss, "wants_preparation", True)
        ]

    def prepare(
        self, batches: Iterable[Tensor], memory: int = 2**28
    ) -> dict[str, dict[str, float]]:
        """Let losses fit their own modules to the frozen teacher, once, before step 1.

        The student is read in training mode from a copy, so that its features have the statistics of
        training and no running statistic changes.

        Args:
            batches: Images `b 3 h w`; the losses hold out the last quarter.
            memory: Bytes of features to keep; as many batches are used as fit, at least four.

        Returns:
            Term name -> metrics to record.
        """
        names = self.terms_to_prepare()
        if not names:
            return {}
        pairs: dict[str, list[tuple[Tensor, Tensor | None]]] = {name: [] for name in names}
        copied = self._untapped_copy().train()
        wanted = {self._student_on[n] for n in names}
        with (
            torch.no_grad(),
            Taps(copied, {tap: self._student_taps.paths[tap] for tap in wanted}) as taps,
        ):
            kept = 0
            for count, images in enumerate(batches, start=1):
                copied(images)
                student, teacher = taps.collect(), {}
                if self._teacher_taps is not None:
                    self._hidden[0](images)
                    teacher = self._teacher_taps.collect()
                for name in names:
                    pair = self._preparation_pair(name, student, teacher, images)
                    pairs[name].append(pair)
                    kept += sum(t.numel() * t.element_size() for t in pair if t is not None)
                if count >= 4 and kept * (count + 1) / count > memory:
                    break
        figures = {}
        for name in names:
            loss: Any = self.method.terms[name].loss
            figures[name] = loss.prepare(pairs[name])
        return figures

    def _untapped_copy(self) -> nn.Module:
        """A copy of the student without our hooks; its own hooks (transformers needs them) are kept."""
        self._student_taps.close()
        try:
            return deepcopy(uncompiled(self.student))
        finally:
            self._student_taps.open()

    def _preparation_pair(
        self,
        name: str,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        images: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        own, on = student[self._student_on[name]].float(), self.method.terms[name].on
        other = teacher[on].float() if on in teacher else None
        met = self._met(name, own, other, images)
        return met["student"], met.get("teacher")

    def close(self) -> None:
        """Close the taps, leaving student and teacher as they were."""
        self._student_taps.close()
        if self._teacher_taps is not None:
            self._teacher_taps.close()
        self._values, self._gated = {}, {}

    def anchor(self) -> nn.Parameter | None:
        """The last weight that the terms on `logits` and on `features` share: the last matrix or kernel
        at or before the features' module. Gradient shares are measured on it."""
        path = tap_paths(self.student).get("features")
        if path is None:
            return None
        wanted, _, side = path.partition(":")
        last: nn.Parameter | None = None
        reached = False
        for name, module in uncompiled(self.student).named_modules():
            inside = name == wanted or name.startswith(f"{wanted}.")
            if (reached and not inside) or (side and inside):
                break
            reached = reached or inside
            for parameter in module.parameters(recurse=False):
                last = parameter if parameter.ndim >= 2 else last
        return last

    def anchor_gradients(
        self,
        scale: float = 1.0,
        fraction: Mapping[str, Tensor] | None = None,
        progress: float = 0.0,
    ) -> dict[str, Tensor]:
        """Each weighted term's gradient at the anchor weight, in float32 or more.

        The terms are those of the last `forward`, whose graph must still exist. A term whose gradient
        does not pass through the anchor (an auxiliary head) is left out, or 0 where the student is
        compiled.

        Args:
            scale: Factor on all gradients against underflow in half precision.
            fraction: What the values count in those of a larger batch; they are left whole without it.
            progress: 0 at the first step of the training, 1 at the last.
        """
        anchor = self.anchor()
        if anchor is None or not anchor.requires_grad:
            return {}
        values = weighed(self._values, fraction or {})
        gradients = {}
        for name, weight in self.method.weights(progress).items():
            if name not in values or not values[name].requires_grad:
                continue
            (grad,) = torch.autograd.grad(
                scale * weight * values[name], anchor, retain_graph=True, allow_unused=True
            )
            if grad is not None:
                gradients[name] = raised(grad)
        return gradients

    def gradient_shares(self, task: str = "cross_entropy", scale: float = 1.0) -> dict[str, float]:
        """Each weighted term's gradient norm relative to the task term's, at the anchor weight.

        Args:
            task: The term that the others are compared with.
            scale: Factor on all gradients against underflow in half precision; it cancels.

        The terms are those of the last `forward`: see `anchor_gradients`.
        """
        return shares_of(self.anchor_gradients(scale), task)


def shares_of(gradients: Mapping[str, Tensor], task: str = "cross_entropy") -> dict[str, float]:
    """The norm of each term's gradient relative to the task term's; empty where that is 0 or missing.

    Follows GradNorm's convention of the last shared weight (Chen et al., 2018,
    https://arxiv.org/abs/1711.02257).
    """
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    base = norms.get(task, 0.0)
    return {name: norm / base for name, norm in norms.items()} if base > 0 else {}


def _by_class(classes: Tensor, passed: Tensor) -> Tensor:
    """The number of places of each class id, and of those that passed, `255 2`."""
    index = classes.flatten()
    both = torch.stack([torch.ones_like(index), passed.flatten().to(index)], 1)
    # Not bincount, for whose length a GPU would have to be waited for.
    counts = both.new_zeros(IGNORED + 1, 2).index_add_(0, index, both)
    return counts[:IGNORED]


@torch.no_grad()
def _counted(loss: nn.Module, arguments: Mapping[str, Tensor], whole: Tensor) -> Tensor | float:
    """How much of what a loss would count with labels for all pixels it counts with the given ones."""
    denominator: Any = getattr(loss, "denominator", None)
    if denominator is None:
        return 1.0
    student, teacher = arguments["student"], arguments.get("teacher")
    shapes = student.shape, None if teacher is None else teacher.shape
    ours, all_of_it = denominator(arguments["labels"], *shapes), denominator(whole, *shapes)
    if ours is None:
        return 1.0
    part: Tensor = ours / torch.where(all_of_it > 0, all_of_it, 1)
    return part.to(student)


def _state_of(tensor: Tensor) -> tuple[int, bool, torch.Size]:
    """What operations in place change of a tensor."""
    version = 0 if tensor.is_inference() else tensor._version
    return version, tensor.requires_grad, tensor.shape


@contextmanager
def untouched(name: str, arguments: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse a loss that changes an argument in place: other terms read the same tensors, and would read others."""
    before = {key: _state_of(one) for key, one in arguments.items()}
    yield
    changed = [key for key, one in arguments.items() if _state_of(one) != before[key]]
    if changed:
        raise ValueError(
            f"term {name!r}: its loss changes {' and '.join(changed)} in place; expected them unchanged, since other "
            "terms read them too. Change a copy (clone)"
        )


def _check_apart(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse networks that share weights or statistics: training changes the student's, and the teacher is frozen."""
    theirs = {id(part) for part in [*teacher.parameters(), *teacher.buffers(), *teacher.modules()]}
    shared = [n for n, p in student.named_parameters() if p.requires_grad and id(p) in theirs]
    # Statistics change in training; a constant that both networks register does not.
    shared += [
        f"{path}.{name}".lstrip(".")
        for path, module in student.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if isinstance(module, nn.modules.batchnorm._NormBase)
        and (id(module) in theirs or id(buffer) in theirs)
    ]
    if shared:
        more = f" and {len(shared) - 1} more" if shared[1:] else ""
        raise ValueError(
            f"student and teacher share {shared[0]}{more}; expected networks of their own, as one is trained and the "
            "other frozen. Build two networks, or pass copy.deepcopy(teacher)"
        )


def _check_declared(network: nn.Module, owner: str) -> None:
    try:
        corners = bool(getattr(network, "align_corners", False))
        check_cells(declaration(network), tap_paths(network), corners)
    except ValueError as error:
        raise ValueError(f"the {owner}'s {error}") from None


def _cells(network: nn.Module, tap: str, tensor: Tensor, images: Tensor) -> Cells:
    size, image = tensor.shape[-2:], images.shape[-2:]
    return tap_cells(network, tap, (size[0], size[1]), (image[0], image[1]))


def _tell(loss: Any, cells: Any) -> None:
    held = getattr(loss, "cells", False)
    # A user's own loss may keep something else by this name.
    if held is None or (isinstance(held, tuple) and all(isinstance(one, Cells) for one in held)):
        loss.cells = cells


def _reads_teacher(term: Term) -> bool:
    return "teacher" in term.inputs()


def _student_tap(term: Term, paths: Mapping[str, str]) -> str:
    elsewhere = term.on == "logits" and _reads_teacher(term) and "logits_distilled" in paths
    return "logits_distilled" if elsewhere else term.on
