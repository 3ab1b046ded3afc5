"""`segdistill.distill`: train your own modules on your own data sets, from Python."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import nn
from torch.utils.data import Dataset

from segdistill.config import TrainConfig, code_names
from segdistill.data.dataset import SegmentationDataset
from segdistill.data.labelled import labelled_samples
from segdistill.data.loader import evaluation_loader
from segdistill.data.samples import require_indexed
from segdistill.models import SegmentationModel, network, wrap
from segdistill.models.foreign.resampled import ResampledInput
from segdistill.models.input import InputSetting
from segdistill.names import unknown
from segdistill.run.console import spoken
from segdistill.run.folder import RunFolder, output_folder
from segdistill.run.identity.digests import state_digest
from segdistill.run.lock import writing
from segdistill.run.networks import load_run_model, relabelled
from segdistill.run.opening import require_all_labels, with_precision
from segdistill.run.recipe import parse_recipe
from segdistill.run.training.checks import check_recipe
from segdistill.run.training.job import Job
from segdistill.run.training.train import execute, handed_back, open_folder
from segdistill.trust import remember

_log = logging.getLogger(__name__)


def distill(
    teacher: nn.Module | None,
    student: nn.Module,
    train_set: Any,
    val_set: Any,
    method: str = "idd",
    steps: int = 1000,
    out: str | Path = "runs/distilled",
    *,
    preset: str = "default",
    terms: Mapping[str, Mapping[str, Any]] | None = None,
    labels: Literal["data", "teacher", "both"] = "data",
    confidence: float = 0.0,
    classes: list[str] | None = None,
    teacher_taps: Mapping[str, str] | None = None,
    student_taps: Mapping[str, str] | None = None,
    teacher_input: InputSetting = None,
    student_input: InputSetting = None,
    teacher_labels: Mapping[str | int, str | int | None] | None = None,
    teacher_channels: list[int] | None = None,
    teacher_scale: float = 1.0,
    min_miou: float | None = None,
    same_start: bool = True,
    progress: bool = True,
    observers: Sequence[Any] = (),
    **train: Any,
) -> RunFolder:
    """Distil a teacher into a student, both any `nn.Module`; the same call resumes an interrupted run.

    If the run is already finished, the call loads its weights into the student and trains nothing.
    Resuming and loading require networks and data of the same content; for data sets without files,
    three samples are compared.

    Args:
        teacher: Trained network; None for plain training. It is frozen and kept in `eval()`.
        student: Network to train, in place. Its weights are also saved in the run.
        train_set: Samples to train on: `{image, label, name}` or `(image, label)`, the image `3 h w`
            in 0..1 (RGB; other channels where the networks read them) or uint8, the label `h w` of
            class ids with 255 ignored. A data set with the attribute `labelled = False` (or, for some of
            its samples, `labelled_samples`, one truth value for each) gives
            `{image, name}`.
        val_set: Samples to evaluate on; without labels, agreement with the teacher is measured.
        method: A name of `segdistill list methods`.
        steps: Optimizer steps.
        out: The run's folder.
        preset: `default` or `paper`.
        terms: Overrides of the method's terms, `{"channelwise": {"weight": 5}}`.
        labels: Labels that terms learn from: those of the `data`, the `teacher`'s predictions, or `both`: the
            teacher's on images without labels.
        confidence: With the teacher's labels, its probability (0..1) from which a pixel counts.
        classes: Names of the classes; those of the data set by default.
        teacher_taps: Tap name -> module path in the teacher. `logits` is its output, and `features` the
            input of its last layer with one channel per class, unless given here.
        student_taps: The same for the student.
        teacher_input: Normalisation that the teacher expects, applied to RGB in 0..1, such as
            "imagenet"; see `segdistill.wrap`. None: none.
        student_input: The same for the student.
        teacher_labels: Each of the teacher's classes, in its order -> class of the data, by name or id;
            None drops it. None: the teacher has the data's classes.
        teacher_channels: Indices of the image channels that the teacher reads; None: all.
        teacher_scale: Factor by which images are resized for the teacher.
        min_miou: Lowest mIoU allowed for the teacher on `val_set`, 0 to 100; None: better than
            chance, 0: no limit.
        same_start: Whether the student's initial weights must be those of the run that is resumed or
            loaded. False skips this check, for a student initialised without a seed.
        progress: Show the tap table, the teacher audit and progress, unless the application has set up
            logging.
        observers: Objects with the methods `row(values)` and `finished(run)`, such as those of
            `segdistill.observers`.
        **train: Other fields of a recipe's `train`: `batch`, `crop`, `lr`, `seed`, ...

    Returns:
        The finished run; the student has its weights and is in `eval()` mode.

    Raises:
        IdentityDiffers: `out` holds a run of another student, teacher or data set; the message says which.
        FolderInUse: Another process is training in `out`.
        ValueError: Networks, data and method do not fit together; the message is one line.

    Example:
        The smallest call that runs; a real one has a trained teacher and thousands of steps.

        >>> from segdistill import build_dataset, build_model
        >>> train_set = build_dataset("synthetic", split="train", count=4)
        >>> val_set = build_dataset("synthetic", split="val", count=2)
        >>> teacher, student = (build_model("enet", len(val_set.classes)) for _ in range(2))
        >>> run = distill(teacher, student, train_set, val_set, "cwd", steps=1, out="runs/mine",
        ...               batch=2, crop=(32, 64), min_miou=0, progress=False)
        >>> run.finished
        True
    """
    known = {f.name for f in fields(TrainConfig)} - {"steps"}
    for key in train:
        if key not in known:
            raise ValueError(f"distill(): {unknown('training option', key, known)}")
    names = [str(c) for c in (classes or getattr(val_set, "classes", None) or [])]
    if not names:
        raise ValueError(
            "distill(): the data set has no `classes`. Pass their names as classes=[...]"
        )
    for name, dataset in (("train_set", train_set), ("val_set", val_set)):
        require_indexed(dataset, name)
    require_all_labels(val_set, "val_set")
    out = Path(out).expanduser()
    values: dict[str, Any] = {
        "data": {"name": _path_of(train_set)},
        "student": {"model": _path_of(student)},
        "method": {"name": method, "preset": preset, "labels": labels, "confidence": confidence},
        "terms": {
            name: dict(change) if isinstance(change, Mapping) else change
            for name, change in (terms or {}).items()
        },
        "train": {"steps": steps, **train},
        "out": str(out),
    }
    if teacher is not None:
        values["teacher"] = {
            "model": _path_of(teacher),
            "min_miou": min_miou,
            "labels": None if teacher_labels is None else dict(teacher_labels),
            "channels": teacher_channels,
            "scale": teacher_scale,
        }
    recipe = with_precision(parse_recipe(values, name="distill()"))
    check_recipe(recipe)
    # These are modules of the program that runs now.
    remember([*code_names(recipe), (getattr(student, "spec", None) or {}).get("name")])
    with spoken(progress), writing(output_folder(out)):
        open_folder(recipe, out)
        own = _fulfil(student, len(names), student_taps, student_input)
        other = None
        if teacher is not None:
            count = len(names if teacher_labels is None else teacher_labels)
            other = _fulfil(teacher, count, teacher_taps, teacher_input)
            if teacher_channels is not None or teacher_scale != 1:
                other = ResampledInput(other, teacher_channels, teacher_scale)
            if teacher_labels is not None:
                other = relabelled(other, teacher_labels, names)
        train_set, val_set = (_Declared.where_needed(s, names) for s in (train_set, val_set))
        _check_samples(val_set)
        origin = {} if teacher is None else {"module": _path_of(teacher)}
        job = Job(recipe, out, own, other, origin, train_set, val_set, names, observers)
        _remember_start(job)
        finished = handed_back(job, () if same_start else ("student_start",))
        if finished is not None:
            _log.info("%s is already finished; the student has its weights now", out)
            load_run_model(finished, model=own)
            return finished
        try:
            run = execute(job, progress)
            own.eval()  # as its metrics were measured, and as a finished run is loaded
            return run
        finally:
            _started[network(student)] = job.identity.student_start, state_digest(student)


_started: WeakKeyDictionary[nn.Module, tuple[str, str]] = WeakKeyDictionary()
"""Students trained in this process: digests of their initial and of their latest weights."""


def _remember_start(job: Job) -> None:
    """Give a partly trained student (after an interrupt in a notebook, say) the digest of its initial weights."""
    start, left = _started.get(network(job.student), (None, None))
    if start is not None and left == job.identity.student_start:
        job.identity = replace(job.identity, student_start=start)


def _path_of(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _fulfil(
    module: nn.Module,
    num_classes: int,
    taps: Mapping[str, str] | None,
    normalise: InputSetting,
) -> nn.Module:
    """The module itself if it keeps the model contract, otherwise wrapped so that it does."""
    if isinstance(module, SegmentationModel) and normalise is None:
        if taps:
            module.taps = {**module.taps, **taps}
        return module
    model = wrap(module, num_classes, taps=dict(taps) if taps else None, input=normalise)
    if model is not module:
        model.spec = {"name": _path_of(module), "rebuild": False, "options": {}}
    return model


class _Declared(Dataset[Any]):
    """A custom data set with the attributes that a run needs: classes, and samples by key.

    Without a number of classes, label ids could not be checked.
    """

    only_declares = True
    """Samples are those of the set inside."""

    def __init__(self, dataset: Any, classes: list[str]) -> None:
        self.dataset, self.classes, self.num_classes = dataset, classes, len(classes)
        self.palette = getattr(dataset, "palette", [])
        self.labelled_samples = labelled_samples(dataset)
        self.labelled = any(self.labelled_samples)

    @classmethod
    def where_needed(cls, dataset: Any, classes: list[str]) -> Any:
        """Wrap a data set, unless it is one of this package."""
        return dataset if isinstance(dataset, SegmentationDataset) else cls(dataset, classes)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        if isinstance(item, (tuple, list)) and len(item) >= 2:
            return {"image": item[0], "label": item[1], "name": str(index)}
        return item


def _check_samples(dataset: Any) -> None:
    next(iter(evaluation_loader(dataset)))
