"""Why a teacher's mIoU is too low: its classes or its input may be misread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import yaml
from jaxtyping import Int64
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from segdistill.data.dataset import list_names
from segdistill.models.foreign.relabelled import Relabelled
from segdistill.models.foreign.resampled import ResampledInput
from segdistill.models.input import INPUTS, InputNormalisation, make_input
from segdistill.run.auditing.assignment import assignment
from segdistill.run.evaluation import Evaluation, Protocol, measure

IMAGES = 16
"""Images, evenly spread over the split, on which other readings are tried."""
CLEAR = 0.05
"""What another reading must add to the mIoU (5 points) to be reported as the cause."""


class Cause(NamedTuple):
    """A reading of the teacher with clearly more mIoU than the declared one, on the same images.

    Attributes:
        reading: The reading, in words that follow "with".
        declared: mIoU of the declared reading, 0 to 1.
        miou: mIoU of this reading, 0 to 1.
        images: How many images both were measured on.
        remedy: What to set in the recipe.
    """

    reading: str
    declared: float
    miou: float
    images: int
    remedy: str

    def __str__(self) -> str:
        return (
            f"With {self.reading} its mIoU is {100 * self.miou:.1f} instead of "
            f"{100 * self.declared:.1f} (on {self.images} images): {self.remedy}"
        )


def suspect(
    model: nn.Module, dataset: Dataset[Any], protocol: Protocol | None = None, **options: Any
) -> Cause | None:
    """The simplest reading that clearly raises a network's mIoU; None if there is none.

    The readings are: class numbers shifted by one, and the best one-to-one assignment of its classes
    to the data's (both from one confusion matrix); channels as BGR, and the usual normalisations.

    Args:
        model: The network; its declared input is restored.
        dataset: Labelled images, of which at most `IMAGES` are used.
        protocol: How images are presented to the network; None: unchanged.
        **options: Further options of `measure`.
    """

    def measured(network: nn.Module, images: Dataset[Any]) -> Evaluation:
        return measure(network, images, protocol or Protocol(), **options)

    total = len(dataset)  # type: ignore[arg-type]
    places = [i * total // min(IMAGES, total) for i in range(min(IMAGES, total))]
    some = Subset(dataset, places)
    try:
        declared = measured(model, some)
    except ValueError:  # these few images have no labelled pixel
        return None
    readings = [*_relabelled(model, declared), *_renormalised(model, some, declared, measured)]
    clear = [cause for cause in readings if cause.miou >= declared.miou + CLEAR]
    # Of readings that are practically equal, the first one is the simplest.
    best = max((cause.miou for cause in clear), default=0.0)
    return next((cause for cause in clear if cause.miou >= best - 0.01), None)


def _relabelled(model: nn.Module, declared: Evaluation) -> Iterator[Cause]:
    confusion, count = declared.confusion, len(declared.classes)
    shifts = {"up": [(j + 1) % count for j in range(count)]}
    shifts["down"] = [(j - 1) % count for j in range(count)]
    for direction, order in shifts.items():
        yield Cause(
            f"its class numbers shifted {direction} by one",
            declared.miou,
            _miou_as(confusion, order),
            declared.images,
            _renumber(model, order, declared.classes),
        )
    order = best_order(confusion)
    moved = [
        f"its {j} as {declared.classes[i]}"
        for j, i in enumerate(order)
        if i != j and confusion[i, j]
    ]
    yield Cause(
        f"its classes in another order ({list_names(moved, 3)})",
        declared.miou,
        _miou_as(confusion, order),
        declared.images,
        _renumber(model, order, declared.classes),
    )


def best_order(confusion: Int64[Tensor, "k k"]) -> list[int]:
    """The class that each prediction should stand for, to maximise the mIoU.

    The IoU of class i with prediction j depends on no other pair, so the best order is an
    assignment.
    """
    hits = confusion.double()
    unions = hits.sum(1, keepdim=True) + hits.sum(0, keepdim=True) - hits
    # Classes without evidence keep their number.
    score = hits / unions.clamp(min=1) + 1e-9 * torch.eye(len(hits), dtype=torch.float64)
    return assignment(score.T.numpy())


def _miou_as(confusion: Tensor, order: list[int]) -> float:
    return Evaluation.from_confusion(confusion[:, torch.tensor(order).argsort()]).miou


def _renumber(model: nn.Module, order: list[int], classes: list[str]) -> str:
    """The recipe setting that maps each of the teacher's classes to the right one."""
    declared = model.assigned if isinstance(model, Relabelled) else range(len(order))
    labels = {j: None if i is None else classes[order[i]] for j, i in enumerate(declared)}
    return f"set teacher.labels to {_flow(labels)}"


def _renormalised(
    model: nn.Module,
    some: Dataset[Any],
    declared: Evaluation,
    measured: Callable[..., Evaluation],
) -> Iterator[Cause]:
    owner = model
    while isinstance(owner, Relabelled | ResampledInput):
        owner = owner.module
    current = getattr(owner, "input", None)
    if not isinstance(current, InputNormalisation):
        return
    for reading, settings in _readings(current).items():
        with _reading(owner, settings):
            result = measured(model, some)
        text = _flow({"input": _plain(settings)})
        remedy = f"set teacher.options to {text} (for a run, set its recipe's student.options)"
        yield Cause(reading, declared.miou, result.miou, result.images, remedy)


def _readings(current: InputNormalisation) -> dict[str, dict[str, Any]]:
    """Other settings of an RGB input, the likeliest first."""
    spec = current.spec
    if len(spec["mean"]) != 3:
        return {}
    swapped: dict[str, Any] = {"order": "rgb" if spec["order"] == "bgr" else "bgr"}
    swapped |= {key: tuple(spec[key])[::-1] for key in ("mean", "std")}
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    half = (0.5, 0.5, 0.5)
    bgr: dict[str, Any] = {key: values[::-1] for key, values in INPUTS["imagenet"].items()}
    settings = {
        f"its channels as {swapped['order'].upper()}": {**spec, **swapped},
        "ImageNet's mean and standard deviation": INPUTS["imagenet"],
        "ImageNet's mean and standard deviation, as BGR": {**bgr, "order": "bgr"},
        "no normalisation (0..1)": {"mean": zero, "std": one},
        "values from -1 to 1": {"mean": half, "std": half},
        "values from 0 to 255": {"mean": zero, "std": one, "scale": 255.0},
        "BGR from 0 to 255 minus its mean (caffe)": INPUTS["caffe_bgr"],
    }
    known = [spec]
    distinct = {}
    for reading, values in settings.items():
        full = make_input(values).spec
        if full not in known:
            known.append(full)
            distinct[reading] = full
    return distinct


@contextmanager
def _reading(model: nn.Module, settings: dict[str, Any]) -> Iterator[None]:
    """The network with another input normalisation, restored on exit."""
    current: Any = model.input
    model.input = make_input(settings).to(current.mean.device)
    try:
        yield
    finally:
        model.input = current


def _plain(settings: dict[str, Any]) -> Any:
    """The name of these settings, or those that differ from the defaults."""
    for name, values in INPUTS.items():
        if make_input(values).spec == settings:
            return name
    plain = {"scale": 1.0, "post_scale": 1.0, "order": "rgb"}
    short = {key: value for key, value in settings.items() if value != plain.get(key)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in short.items()}


def _flow(values: dict[Any, Any]) -> str:
    return yaml.safe_dump(
        values, default_flow_style=True, sort_keys=False, width=float("inf")
    ).strip()
