"""Checks before the first step: settings, classes, channels and labels."""

import os
from collections.abc import Sequence

import torch
from torch import nn

from segdistill.config import Recipe, TeacherConfig, check_ranges
from segdistill.data.dataset import require_labels
from segdistill.distillation.method import Method
from segdistill.models import encoders
from segdistill.models import network as shipped
from segdistill.names import unknown
from segdistill.run.auditing import missing_labels
from segdistill.run.identity.seen import check_seen
from segdistill.run.opening import refuse_unread_root, resolve_device, set_data
from segdistill.run.training.batches import labelled_share
from segdistill.run.training.job import Job


def check_recipe(recipe: Recipe) -> None:
    """Refuse settings that are invalid or unsupported on this machine, before anything is built.

    Raises:
        ValueError: A setting is invalid; the message names the key and the allowed values.
    """
    config, world = recipe.train, int(os.environ.get("WORLD_SIZE", "1"))
    check_ranges(recipe)  # of recipes that were built in Python, too
    device = resolve_device(config.device)
    if config.precision == "fp16" and device == "cpu":
        raise ValueError("train.precision is fp16; expected bf16 or 32 on a CPU")
    refuse_unread_root(recipe.data)
    for name, one in recipe.evaluation.items():
        if one.root is not None:
            try:
                refuse_unread_root(set_data(recipe.data, one))
            except ValueError as error:
                raise ValueError(f"evaluation.{name}: {error}") from None
    _check_one_teacher(recipe.teacher)
    method = recipe.chosen_method()
    if not 0 <= method.confidence <= 1:
        raise ValueError(
            f"method.confidence is {method.confidence}; expected a probability from 0 to 1"
        )
    if method.confidence and method.labels == "data":
        raise ValueError(
            f"method.confidence is {method.confidence} with method.labels {method.labels}; expected 0. "
            "Set method.labels to teacher or both, or leave confidence out"
        )
    if config.batch % (world * config.accumulate):
        raise ValueError(
            f"train.batch is {config.batch}; expected a multiple of {world * config.accumulate} "
            f"({world} processes x {config.accumulate} parts of train.accumulate)"
        )


def _check_one_teacher(teacher: TeacherConfig | None) -> None:
    """Refuse a run beside another network, of which only the run would be read."""
    if teacher is None or teacher.run is None:
        return
    others = [key for key in ("model", "factory", "weights", "options") if getattr(teacher, key)]
    if others:
        raise ValueError(
            f"teacher.run is {teacher.run} beside teacher.{others[0]}; expected a run, or a model and its weights. Set "
            f"run to null, or remove {' and '.join(others)}"
        )


def check_classes(job: Job) -> None:
    """Refuse data and networks with different numbers of classes, and names that do not tell classes apart."""
    blank = [number for number, name in enumerate(job.classes) if not name.strip()]
    twice = [name for name in job.classes if job.classes.count(name) > 1]
    if blank or twice:
        what = f"{twice[0]!r:.60} twice" if twice else f"no name for class {blank[0]}"
        raise ValueError(
            f"the classes have {what}; expected a name of its own for each. Name them in data.options.classes"
        )
    counts = {"classes": len(job.classes)}
    for owner, part in (
        ("training data", job.train_set),
        ("evaluation data", job.val_set),
        ("student", job.student),
        ("teacher", job.teacher),
    ):
        count = getattr(part, "num_classes", None)
        if count is not None:
            counts[owner] = int(count)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{owner} {count}" for owner, count in counts.items())
        raise ValueError(
            f"the numbers of classes differ ({listed}); expected the same number everywhere"
        )


def check_reading(recipe: Recipe, classes: Sequence[str]) -> None:
    """Refuse unknown names among what is measured and claimed after the training.

    Raises:
        ValueError: `thin_classes` names no class of the data or one twice, or `claims_on` no evaluation set.
    """
    for name in recipe.thin_classes:
        if name not in classes:
            raise ValueError(f"thin_classes: {unknown('class', name, classes)}")
        if recipe.thin_classes.count(name) > 1:
            raise ValueError(
                f"thin_classes names {name} twice; expected each class once, as their mean is taken. Remove one"
            )
    if recipe.claims_on is not None and recipe.claims_on not in recipe.evaluation:
        known = recipe.evaluation
        raise ValueError(f"claims_on: {unknown('evaluation set', recipe.claims_on, known)}")


def check_seen_sets(job: Job) -> None:
    """Warn of further sets with images that were trained on, and refuse one that claims are made on.

    Raises:
        ValueError: Claims are made on such a set.
    """
    for name, dataset in job.sets.items():
        claimed = name == job.recipe.claims_on
        check_seen(job.recipe, job.train_set, f"evaluation.{name}", dataset, True, claimed)


def check_encoder(job: Job) -> None:
    """Refuse a learning rate for all but the encoder where no encoder can be found."""
    factor = job.recipe.train.head_lr_factor
    if factor != 1 and not encoders(job.student):
        raise ValueError(
            f"train.head_lr_factor is {factor:g}; expected 1, as {type(shipped(job.student)).__name__} has no "
            "submodule named encoder or backbone. Name the pretrained part so, or leave the factor out"
        )


def check_channels(job: Job, channels: int) -> None:
    """Refuse a network that reads another number of channels than the images have."""
    teacher = job.recipe.teacher
    picked = teacher.channels if teacher is not None else None
    for owner, network in (("student", job.student), ("teacher", job.teacher)):
        reads = getattr(network, "in_channels", channels)
        if reads != channels and not (owner == "teacher" and picked is not None):
            remedy = ", or select some with teacher.channels" if owner == "teacher" else ""
            raise ValueError(
                f"the images have {channels} channels and the {owner} reads {reads}. Change "
                f"data.options.channels, or build the {owner} for {channels} (options.in_channels; for a "
                f"custom network, the mean and std of its input){remedy}"
            )


def check_labels(job: Job, method: Method) -> None:
    """Refuse data without labels if a term or the evaluation needs them."""
    data, labels = job.recipe.data, job.recipe.chosen_method().labels
    if not getattr(job.train_set, "labelled", True):
        where = f"{data.name}, split {data.train_split!r},"
        if refused := missing_labels(method, labels, where):
            raise ValueError(refused)
    for name, term in method.terms.items():
        if labels != "data" and getattr(term.loss, "wants_class_pixels", False):
            raise ValueError(
                f"terms.{name}: balance is set with method.labels {labels}; expected none, as the labels of "
                "the data, which would be counted, are not all that is learnt from. Leave balance out, or set "
                "weight"
            )
    if job.teacher is None:
        require_labels(job.val_set, f"{data.name}, split {data.val_split!r},")


def check_mix(job: Job, method: Method) -> None:
    """Refuse what cannot be done with a training split of which some images have labels.

    Raises:
        ValueError: `train.labelled_share` asks for images that the split or the batch does not have, or a
            published form counts images without labels as zeros.
    """
    share, flags = job.recipe.train.labelled_share, job.labelled_samples
    some, every = any(flags), all(flags)
    split, batch = job.recipe.data.train_split, job.recipe.train.batch
    if share is not None and (not some or (every and share < 1)):
        raise ValueError(
            f"train.labelled_share is {share:g}, and {'all' if every else 'none'} of the {len(flags)} images of "
            f"{split} have labels; expected null. Leave it out, or set data.train_options.labelled"
        )
    if labelled_share(job, method) in (None, 1):
        return
    if batch == 1:
        raise ValueError(
            f"train.batch is 1, and {sum(flags)} of the {len(flags)} images of {split} have labels; expected 2 or "
            "more, as a batch has images of both kinds. Raise train.batch, or set train.labelled_share to 1"
        )
    if job.recipe.chosen_method().labels != "data":
        return
    for name, term in method.terms.items():
        if getattr(term.loss, "averages_ignored", False):
            raise ValueError(
                f"terms.{name}: this published form counts images without labels as zeros in its mean; expected "
                "labels for all images. Set its options.form to default, or method.labels to both"
            )


def check_images(job: Job, method: Method) -> None:
    """Refuse batches, or parts of them, with fewer images than a loss needs."""
    config, world = job.recipe.train, int(os.environ.get("WORLD_SIZE", "1"))
    parts = world * config.accumulate
    images = config.batch // parts
    for name, term in method.terms.items():
        least = int(getattr(term.loss, "least_images", 1))
        if images < least:
            where = "train.batch" if parts == 1 else f"train.batch in {parts} parts"
            raise ValueError(
                f"terms.{name}: {where} has {images} image{'s' * (images > 1)}; expected {least} or more. "
                "Raise train.batch"
            )


def other_types(job: Job) -> str:
    """What to do about a network whose weights are not in single precision, as the images are; "" for none."""
    for owner, network in (("student", job.student), ("teacher", job.teacher)):
        tensors = [] if network is None else [*network.parameters(), *network.buffers()]
        types = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        if others := types - {torch.float32}:
            name = str(min(others, key=str)).removeprefix("torch.")
            return (
                f"The {owner} has weights in {name}; expected float32, as train.precision chooses what is computed "
                f"in. Call {owner}.float()"
            )
    return ""


def kept_in_eval(student: nn.Module) -> str:
    """A warning about layers in eval() mode inside a student in train() mode, which training changes; "" for none.

    A student that is in eval() as a whole was only measured before. One whose own train() leaves layers in eval()
    is not meant.
    """
    student = shipped(student)
    if not student.training:
        return ""
    modes = {module: module.training for module in student.modules()}
    student.train()
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    changed = [
        path
        for path, module in student.named_modules()
        if isinstance(module, kinds) and module.training and not modes[module]
    ]
    for module, mode in modes.items():
        module.training = mode
    if not changed:
        return ""
    more = f" and {len(changed) - 1} more" if changed[1:] else ""
    return (
        f"{changed[0]}{more} of the student {'are' if changed[1:] else 'is'} in eval() mode: training puts the whole "
        "student in train() mode, where batch norm updates its statistics, frozen or not. To keep layers in "
        "eval(), override train() in the network"
    )
