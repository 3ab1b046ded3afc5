"""What may be wrong with a teacher that measures too little: its classes or its input."""

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
"""Images, evenly spread over the split, on which suspicions are tried."""
CLEAR = 0.05
"""What another reading must add to the mIoU (5 points) to be named as the cause."""


class Cause(NamedTuple):
    """A reading of the teacher that measures clearly more than the declared one, on the same images.

    Attributes:
        what: The reading, in words that follow "with".
        declared: mIoU as declared, 0 to 1.
        miou: mIoU so read.
        images: How many images both were measured on.
        remedy: What to write in the recipe.
    """

    what: str
    declared: float
    miou: float
    images: int
    remedy: str

    def __str__(self) -> str:
        return (
            f"with {self.what} it measures {100 * self.miou:.1f} mIoU, as declared "
            f"{100 * self.declared:.1f} (on {self.images} images): {self.remedy}"
        )


def suspect(
    model: nn.Module, dataset: Dataset[Any], protocol: Protocol | None = None, **options: Any
) -> Cause | None:
    """The simplest reading under which a network measures clearly more; None where there is none.

    Tried are: class numbers shifted by one, and the best one-to-one assignment of its classes to the
    data's (both out of one confusion matrix); the channels as BGR, and the usual normalisations.

    Args:
        model: The network; what it declares as its input is put back.
        dataset: Labelled images, of which at most `IMAGES` are used.
        protocol: How the network is shown an image; None: the image as it is.
        **options: Further ones of `measure`.
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
    # Of readings that are as good as equal the first one is the simplest.
    best = max((cause.miou for cause in clear), default=0.0)
    return next((cause for cause in clear if cause.miou >= best - 0.01), None)


def _relabelled(model: nn.Module, declared: Evaluation) -> Iterator[Cause]:
    confusion, count = declared.confusion, len(declared.classes)
    shifts = {"up": [(j + 1) % count for j in range(count)]}
    shifts["down"] = [(j - 1) % count for j in range(count)]
    for direction, order in shifts.items():
        what = f"its class numbers moved {direction} by one"
        yield Cause(
            what,
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
    """The class that each prediction should stand for, so that the mIoU is greatest.

    The IoU of class i with prediction j depends on no other pair, so the best order is an
    assignment.
    """
    hits = confusion.double()
    unions = hits.sum(1, keepdim=True) + hits.sum(0, keepdim=True) - hits
    # What decides nothing stays in its place.
    score = hits / unions.clamp(min=1) + 1e-9 * torch.eye(len(hits), dtype=torch.float64)
    return assignment(score.T.numpy())


def _miou_as(confusion: Tensor, order: list[int]) -> float:
    return Evaluation.from_confusion(confusion[:, torch.tensor(order).argsort()]).miou


def _renumber(model: nn.Module, order: list[int], classes: list[str]) -> str:
    """What each of the teacher's classes should count as, to write in the recipe."""
    declared = model.assigned if isinstance(model, Relabelled) else range(len(order))
    labels = {j: None if i is None else classes[order[i]] for j, i in enumerate(declared)}
    return f"write teacher.labels {_flow(labels)}"


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
    for what, settings in _readings(current).items():
        with _reading(owner, settings):
            result = measured(model, some)
        text = _flow({"input": _plain(settings)})
        remedy = f"write teacher.options {text} (where it is a run: the student.options of that)"
        yield Cause(what, declared.miou, result.miou, result.images, remedy)


def _readings(current: InputNormalisation) -> dict[str, dict[str, Any]]:
    """Other settings of an input of RGB, the likeliest first."""
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
        "BGR from 0 to 255 less its mean (caffe)": INPUTS["caffe_bgr"],
    }
    known = [spec]
    distinct = {}
    for what, values in settings.items():
        full = make_input(values).spec
        if full not in known:
            known.append(full)
            distinct[what] = full
    return distinct


@contextmanager
def _reading(model: nn.Module, settings: dict[str, Any]) -> Iterator[None]:
    """The network with another first operation, for a while."""
    current: Any = model.input
    model.input = make_input(settings).to(current.mean.device)
    try:
        yield
    finally:
        model.input = current


def _plain(settings: dict[str, Any]) -> Any:
    """The name of these settings, or what of them is no default."""
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
