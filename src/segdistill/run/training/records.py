"""What a training logs and writes besides metrics.jsonl."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.table import Table
from torch.nn import Parameter

from segdistill.config import TrainConfig, to_dict
from segdistill.data.samples import read_sample
from segdistill.distillation.distiller import Distiller, TapRow
from segdistill.distillation.method import Method
from segdistill.models.foreign.wrapped import read_as
from segdistill.run.auditing import one_sided
from segdistill.run.console import log_table
from segdistill.run.environment import describe_environment, differences, load
from segdistill.run.evaluation import Evaluation, Protocol, measure
from segdistill.run.evaluation.profile import profile
from segdistill.run.evaluation.sets import Measuring, Network, teacher_network
from segdistill.run.folder import (
    WEIGHTS,
    RunFolder,
    file_sha256,
    is_in_config,
    keep_in_config,
    write_json,
)
from segdistill.run.identity import FILE
from segdistill.run.networks import load_run_model, save_network
from segdistill.run.opening import resolve_device, set_data
from segdistill.run.training.checkpoint import drop_checkpoints, has_checkpoint, load_checkpoint
from segdistill.run.training.checks import check_seen_sets
from segdistill.run.training.job import Job, evaluate_with
from segdistill.run.training.loop import Loop

_log = logging.getLogger(__name__)


def show_taps(rows: list[TapRow], method: Method) -> None:
    """Log the tap table, with the weight of each term."""
    heads = ("term", "weight", "tap", "student", "teacher", "alignment")
    table = Table(*heads, title="What each term reads")
    for row in rows:
        shapes = ("x".join(map(str, s[1:])) if s else "-" for s in (row.student, row.teacher))
        term = method.terms[row.term]
        weight = f"{term.weight:g}"
        if term.schedule != "constant":
            weight += f" → {term.weight_at(1):g}, {term.schedule}"
        table.add_row(row.term, weight, row.tap, *shapes, row.alignment)
    log_table(_log, table)


def show_groups(
    groups: Sequence[Mapping[str, Any]], lr: float, frozen: Sequence[Parameter] = ()
) -> None:
    """Log what is trained at which base learning rate, and what of the student is frozen."""
    table = Table("group", "tensors", "parameters", "learning rate", title="What is trained")
    for group in groups:
        numbers = [parameter.numel() for parameter in group["params"]]
        rate = lr * group["factor"]
        table.add_row(group["name"], str(len(numbers)), f"{sum(numbers):,}", f"{rate:g}")
    if frozen:
        numbers = [parameter.numel() for parameter in frozen]
        table.add_row("frozen (student)", str(len(numbers)), f"{sum(numbers):,}", "-")
    log_table(_log, table)


def show_parts(distiller: Distiller, config: TrainConfig, processes: int) -> None:
    """Log which terms depend on how a batch is split, where it is split."""
    parts, statistics = config.accumulate * processes, distiller.statistics()
    if parts > 1 and statistics:
        _log.info(
            "a batch is computed in %d parts of %d images; statistics of a part and not of the batch: %s",
            parts,
            config.batch // parts,
            ", ".join(f"{name} ({statistic})" for name, statistic in statistics.items()),
        )


def show_mix(job: Job, labelled: int | None) -> None:
    """Log how many training images have labels, and how many of each batch, where only some have.

    Args:
        job: The training.
        labelled: Images with labels in each batch; None where all have them, or none.
    """
    if labelled is None:
        return
    flags, config = job.labelled_samples, job.recipe.train
    stated = "train.labelled_share"
    if config.labelled_share is None:
        stated = "by default, as in the split"
        if labelled == config.batch:
            stated = "by default, as no term learns from the others"
    _log.info(
        "%d of the %d images of %s have labels; %d of the %d of each batch (%s)",
        *(sum(flags), len(flags), job.recipe.data.train_split, labelled, config.batch, stated),
    )


def show_average(config: TrainConfig) -> None:
    """Log that an average of the weights is evaluated and saved, where it is."""
    if config.average:
        _log.info(
            "evaluated and saved: the exponential moving average of the student's weights, decay %g, at step "
            "t min(%g, (1 + t) / (10 + t))",
            config.average,
            config.average,
        )


def record_environment(out: Path, fabric: Fabric) -> None:
    """Write `environment.json`, or warn if a resumed run started in another environment."""
    now = describe_environment(fabric.device, fabric.world_size)
    path = out / "environment.json"
    if path.exists() and load_checkpoint(out) is not None:
        old = RunFolder(out).environment()
        changed = differences(old, now)
        if changed:
            _log.warning(
                "the environment has changed (%s); the resumed run may not be bit-identical",
                "; ".join(changed),
            )
            write_json(path, {**old, "resumed": [*old.get("resumed", []), *changed]})
            return
        now |= {key: old[key] for key in ("resumed",) if key in old}
    write_json(path, now)


def record_load(out: Path) -> None:
    """Add the machine's load at the end of a training, on which its times depend."""
    write_json(out / "environment.json", {**RunFolder(out).environment(), "load": load()})


def record_identity(job: Job) -> None:
    """Write `identity.json`; a resumed run keeps its own."""
    if not has_checkpoint(job.out):
        write_json(job.out / FILE, job.identity.to_json())


def record_start(loop: Loop, start: Evaluation, write: bool) -> None:
    """Record the untrained student's agreement, the baseline for agreement without labels."""
    if write:
        loop.record({"kind": "val", "step": 0, **start.figures()})
        _log.info("%s  step 0: %s", loop.label, start.headline())
        # Its labels are the teacher's classes.
        if unsure := one_sided(start.confusion.sum(1), start.classes):
            _log.warning("%s", unsure)


def record_network(job: Job, evaluation: Evaluation, loop: Loop) -> None:
    """Write the network, how to build it, and its metrics; then remove the checkpoints."""
    recipe = job.recipe
    save_network(job.student, job.out)
    record_load(job.out)
    spec = getattr(job.student, "spec", None) or {}
    info = {
        "name": spec.get("name", type(job.student).__qualname__),
        "rebuild": bool(spec.get("rebuild", bool(spec))),
        "num_classes": len(job.classes),
        "options": spec.get("options", {}),
        "read_as": read_as(job.student),
        **({"factory": True} if spec.get("factory") else {}),
        "classes": job.classes,
        "train_labelled": sum(job.labelled_samples),
        "train_images": len(job.labelled_samples),
        "palette": [list(c) for c in getattr(job.train_set, "palette", [])],
        "size": list(recipe.data.size) if recipe.data.size else None,
        "method": recipe.chosen_method().name,
        "step": loop.step,
        "stopped": loop.stopped,
        "training_seconds": loop.seconds,
        "preparation_seconds": loop.preparation_seconds,
        "sha256": file_sha256(job.out / WEIGHTS["model"]),
        "best_sha256": file_sha256(best) if (best := job.out / WEIGHTS["best"]).exists() else None,
    }
    write_json(job.out / "model.json", info)
    height, width = read_sample(job.val_set, 0)[0].shape[-2:]
    size = recipe.data.size or (int(height), int(width))
    cost = profile(job.student, size=size, latency=False)
    result = {
        **evaluation.to_json(),
        "weights": WEIGHTS["model"],
        "weights_sha256": info["sha256"],
        "val_data": job.identity.val_data,
        "split": recipe.data.val_split,
        "data": to_dict(recipe)["data"],
        "profile": cost.to_json(),
    }
    write_json(job.out / "evaluation.json", result)
    drop_checkpoints(job.out)
    if loop.stopped is not None:
        _log.info(
            "%s stopped early, at step %d of %d, by %s: %s",
            job.out,
            loop.step,
            recipe.train.steps,
            loop.stopped["by"],
            loop.stopped["reason"],
        )
    which = "averaged" if recipe.train.average else "last"
    _log.info("%s: %s, %s weights", job.out, evaluation.headline(), which)


def record_sets(job: Job, fabric: Fabric) -> None:
    """Measure the student that was just trained, and its teacher, on the recipe's further sets."""
    weights = RunFolder(job.out).model_info()["sha256"] if fabric.is_global_zero else None
    student = Network(lambda: job.student, job.student, fabric.broadcast(weights))
    measuring = Measuring(
        job.out,
        Protocol.of(job.recipe),
        job.recipe.evaluate.absent,
        student,
        _teacher_of(job),
        lambda model, dataset: evaluate_with(job, model, fabric, dataset),
        fabric.broadcast,
        fabric.is_global_zero,
    )
    _measure_sets(job, measuring)


def complete_sets(job: Job, run: RunFolder) -> None:
    """Measure a finished run on the sets that its recipe has gained since, in the first process.

    Raises:
        ValueError: Claims are made on a set with images that were trained on.
    """
    if not job.sets or os.environ.get("RANK", "0") != "0":
        return
    check_seen_sets(job)
    device = resolve_device(job.recipe.train.device)
    absent = job.recipe.evaluate.absent
    protocol = Protocol.of(job.recipe)
    weights = run.model_info().get("sha256")
    measuring = Measuring(
        run.path,
        protocol,
        absent,
        Network(lambda: load_run_model(run), job.student, weights),
        _teacher_of(job),
        partial(measure, protocol=protocol, absent=absent, device=device, gather=list),
    )
    _measure_sets(job, measuring)
    sets = {"evaluation": to_dict(job.recipe)["evaluation"]}
    if not is_in_config(run, sets):
        keep_in_config(run, sets)


def _teacher_of(job: Job) -> Network | None:
    if job.teacher is None or job.recipe.random_teacher:
        return None
    return teacher_network(job.teacher, job.origin, job.identity.teacher)


def _measure_sets(job: Job, measuring: Measuring) -> None:
    for name, dataset in job.sets.items():
        data = set_data(job.recipe.data, job.recipe.evaluation[name])
        measuring.on(name, dataset, data, job.set_digest(name))
