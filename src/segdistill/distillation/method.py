"""A method is a mapping of named terms; a term is a loss, its weight and the tap it reads."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from segdistill.dotted import import_class
from segdistill.losses import LOSSES, Loss
from segdistill.names import check_options, made, unknown

CELLS = ("declared", "released")
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1.0 + math.cos(math.pi * progress)) / 2,
}
"""Factor of a weight by the progress of the training: 0 at its first step, 1 at its last."""
_SOURCES = ("student", "teacher", "labels", "images")


@dataclass(frozen=True)
class TermSpec:
    """A term before its loss is built: plain values, as a catalogue or a recipe states them.

    Attributes:
        loss: Key of `LOSSES`, or the dotted path of a class.
        weight: Factor of the loss in the total.
        on: Tap that `student` and `teacher` are read from.
        options: Arguments of the loss.
        source: Where weight and form come from: "published", "released code", "assumed" or "tuned".
        optional: Left out where the student has no such tap (an auxiliary head).
        cells: As for `Term`.
        schedule: As for `Term`.
    """

    loss: str
    weight: float
    on: str = "logits"
    options: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    optional: bool = False
    cells: str = "declared"
    schedule: str = "constant"


@dataclass(frozen=True)
class Term:
    """A loss with its weight and the tap it reads.

    Attributes:
        loss: Called with those of `student`, `teacher`, `labels` and `images` that its `forward` names.
        weight: Factor of the loss in the total, at the first step.
        on: Tap that `student` and `teacher` are read from.
        source: Where weight and form come from.
        optional: Left out where the student has no such tap.
        cells: `declared` for the places that the networks declare (`segdistill.geometry`), `released`
            for the rule of released codes: maps of different size are resized by half pixels, and
            the loss reads labels by a rule of its own.
        schedule: Course of the weight: `constant`, or `linear` or `cosine` down to 0 at the last step.

    Raises:
        ValueError: `cells` or `schedule` is none of these.
    """

    loss: nn.Module
    weight: float
    on: str = "logits"
    source: str = ""
    optional: bool = False
    cells: str = "declared"
    schedule: str = "constant"

    def __post_init__(self) -> None:
        for key, known in (("cells", CELLS), ("schedule", tuple(SCHEDULES))):
            if getattr(self, key) not in known:
                *others, last = known
                raise ValueError(
                    f"{key} is {getattr(self, key)!r}; expected {', '.join(others)} or {last}"
                )

    def weight_at(self, progress: float) -> float:
        """The weight at a step.

        Args:
            progress: 0 at the first step of the training, 1 at the last.
        """
        return self.weight * SCHEDULES[self.schedule](progress)

    def inputs(self) -> dict[str, bool]:
        """Argument names of the loss's `forward`, and whether each is required."""
        parameters = inspect.signature(self.loss.forward).parameters.values()
        return {p.name: p.default is inspect.Parameter.empty for p in parameters}

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss cannot be computed without a teacher."""
        return self.inputs().get("teacher", False)

    @property
    def needs_labels(self) -> bool:
        """Whether the loss cannot be computed without labels."""
        return self.inputs().get("labels", False)


class Method:
    """Named terms.

    Args:
        name: What the method is called in tables.
        terms: Term name -> term. Names are also the log lines and report columns.

    Raises:
        ValueError: A loss takes something other than student, teacher, labels and images, or no
            term is left.
    """

    def __init__(self, name: str, terms: Mapping[str, Term]) -> None:
        if not terms:
            raise ValueError(
                f"method {name!r} has no terms; expected at least one with a positive weight"
            )
        for term_name, term in terms.items():
            for argument in term.inputs():
                if argument not in _SOURCES:
                    raise ValueError(
                        f"term {term_name!r}: {unknown('loss input', argument, _SOURCES)}; "
                        "forward() of a loss may name only these"
                    )
        self.name = name
        self.terms = dict(terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term needs a teacher."""
        return any(term.needs_teacher for term in self.terms.values())

    def without(self, names: Iterable[str]) -> "Method":
        """The same method without some of its terms."""
        dropped = set(names)
        return Method(self.name, {n: t for n, t in self.terms.items() if n not in dropped})

    def weights(self, progress: float = 0.0) -> dict[str, float]:
        """The weight of each term at a step; `progress` is 0 at the first and 1 at the last."""
        return {name: term.weight_at(progress) for name, term in self.terms.items()}

    def total(self, values: Mapping[str, Tensor], progress: float = 0.0) -> Tensor:
        """The weighted sum of the terms' values.

        Args:
            values: Term name -> unweighted value.
            progress: 0 at the first step of the training, 1 at the last.
        """
        weights = self.weights(progress)
        return sum((weight * values[n] for n, weight in weights.items()), start=_zero(values))


def _zero(values: Mapping[str, Tensor]) -> Tensor:
    return next(iter(values.values())).new_zeros(())


def build_loss(name: str, **options: Any) -> nn.Module:
    """Build a loss by its name.

    Args:
        name: A name of `segdistill list losses`, or the dotted path of a class of your own
            (`mypackage.losses.MyLoss`).
        options: Arguments of the loss; `form="skd"` and the like choose a published form.

    Raises:
        ValueError: There is no such loss, or it does not take one of the options.

    Example:
        >>> build_loss("pixelwise", temperature=4.0).temperature
        4.0
    """
    if name not in LOSSES and "." not in name:
        raise ValueError(unknown("loss", name, LOSSES))
    return _built_loss(name, options, nn.Module, "torch.nn.Module")


def _built_loss(name: str, options: Mapping[str, Any], base: type, base_name: str) -> nn.Module:
    kind: Callable[..., Any] = LOSSES.get(name) or import_class(
        name, "loss", f"a subclass of {base_name}", lambda found: issubclass(found, base)
    )
    check_options(f"loss {name!r}", options, kind)
    loss: nn.Module = made(f"loss {name!r}", kind, **options)
    if "_modules" not in vars(loss):
        raise ValueError(
            f"loss {name!r} does not call super().__init__() in its __init__. Add the call"
        )
    return loss


def build_terms(specs: Mapping[str, TermSpec], num_classes: int) -> dict[str, Term]:
    """Build the loss of each term; a loss that takes `num_classes` is given it."""
    terms = {}
    for name, spec in specs.items():
        if spec.weight == 0:
            continue
        options = dict(spec.options)
        kind = LOSSES.get(spec.loss)
        if kind is not None and "num_classes" in inspect.signature(kind).parameters:
            options.setdefault("num_classes", num_classes)
        try:
            loss = _built_loss(spec.loss, options, Loss, "segdistill.losses.Loss")
            term = Term(
                loss,
                spec.weight,
                spec.on,
                spec.source,
                spec.optional,
                spec.cells,
                spec.schedule,
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"terms.{name}: {error}") from None
        terms[name] = term
    return terms


def override(
    specs: Mapping[str, TermSpec], changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, TermSpec]:
    """Apply a recipe's `terms` to a method's: override by name, or add a term.

    Args:
        specs: The method's terms.
        changes: Term name -> `{loss, weight, on, options, cells, schedule}`; what is None or missing is kept.
            A new term needs a weight; its loss defaults to its name, its tap to `logits`.

    Raises:
        ValueError: A new term has no weight, a weight is negative, or its name names no loss.
    """
    result = dict(specs)
    for name, change in changes.items():
        weight = change.get("weight")
        if name not in result:
            loss = change.get("loss") or name
            if loss not in LOSSES and "." not in loss:
                raise ValueError(f"terms.{name}: {unknown('loss', loss, LOSSES)}")
            if weight is None:
                raise ValueError(
                    f"terms.{name}.weight is missing; expected a number, as the method has no such term"
                )
            result[name] = TermSpec(loss, weight, source="recipe")
        if weight is not None and not weight >= 0:
            raise ValueError(
                f"terms.{name}.weight is {weight}; expected 0 (off) or a positive number"
            )
        old = result[name]
        other = change.get("loss") not in (None, old.loss)
        result[name] = replace(
            old,
            loss=change.get("loss") or old.loss,
            weight=old.weight if weight is None else float(weight),
            on=change.get("on") or old.on,
            cells=change.get("cells") or old.cells,
            schedule=change.get("schedule") or old.schedule,
            # Another loss has other options.
            options={**({} if other else old.options), **(change.get("options") or {})},
            source="recipe" if weight is not None or change.get("options") else old.source,
        )
    return result
