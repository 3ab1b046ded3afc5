"""`segdistill train`: from a recipe to a run; the same command resumes an interrupted run."""

import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from segdistill.activity import doing
from segdistill.config import Recipe, code_names, recipe_text, to_dict
from segdistill.data.loader import Batch
from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller, TapRow
from segdistill.distillation.method import Method
from segdistill.distillation.trial import try_losses
from segdistill.run.auditing import refuse_unclear_orientation
from segdistill.run.console import quiet, spoken
from segdistill.run.evaluation import Agreement, Evaluation
from segdistill.run.folder import (
    WEIGHTS,
    RunFolder,
    discarded_if_empty,
    output_folder,
    refuse_nameless,
    write_atomically,
)
from segdistill.run.identity import check_resumable
from segdistill.run.lock import writing
from segdistill.run.networks import build_student, load_teacher, save_network
from segdistill.run.opening import (
    open_sets,
    open_split,
    resolve_device,
    with_precision,
    with_teacher_classes,
)
from segdistill.run.training.balance import balance_classes, losses_to_balance
from segdistill.run.training.batches import (
    labelled_images,
    make_loader,
    probe_batch,
)
from segdistill.run.training.checkpoint import drop_checkpoints, has_checkpoint
from segdistill.run.training.checks import (
    check_channels,
    check_classes,
    check_encoder,
    check_images,
    check_labels,
    check_mix,
    check_reading,
    check_recipe,
    kept_in_eval,
)
from segdistill.run.training.job import Job, evaluate_with, make_fabric, share_state
from segdistill.run.training.loop import Loop, Validation
from segdistill.run.training.observing import Observers, build_observers
from segdistill.run.training.records import (
    complete_sets,
    record_environment,
    record_identity,
    record_network,
    record_sets,
    record_start,
    show_average,
    show_groups,
    show_mix,
    show_parts,
    show_taps,
)
from segdistill.run.training.starting.idle import idle_settings
from segdistill.run.training.starting.looks import (
    check_masks_of,
    check_outputs,
    check_pixels,
    check_shared,
    first_images,
)
from segdistill.run.training.starting.preparation import prepare
from segdistill.run.training.teacher_audit import audit_teacher
from segdistill.run.training.watching import watching
from segdistill.trust import remember, trusting

_log = logging.getLogger(__name__)
_FREE = {"hang_after", "workers", "log_every", "save_every", "device"}
_NAMES = {"out", "label", "role", "tests", "variants", "tuning", "observers"}
_READING = {"evaluation", "contrasts", "claims_on", "thin_classes", "scene_frames", "folds"}
"""Keys about what is measured and claimed after the training."""


def train(
    recipe: Recipe,
    name: str = "recipe",
    progress: bool = True,
    observers: Sequence[Any] = (),
    trust: bool = False,
) -> RunFolder:
    """Train the network of a recipe, or resume its run.

    Args:
        recipe: The recipe; `load_recipe` reads one from a file.
        name: Names the run folder if the recipe has no `out`: `runs/<name>-s<seed>`.
        progress: Show the tap table, the teacher audit and progress, unless the application has set up
            logging.
        observers: Objects with the methods `row(values)` and `finished(run)`, in addition to those of
            the recipe.
        trust: Import modules of somebody's code that the run at `teacher.run` names, now and from now
            on (SECURITY.md).

    Returns:
        The finished run.

    Raises:
        ValueError: Recipe, data or networks do not fit together; the message is one line.
        FileNotFoundError: A file named in the recipe is missing.
        Interrupted: The training was interrupted; its state is saved.
    """
    out = Path(recipe.out or f"runs/{name}-s{recipe.train.seed}")
    with spoken(progress), trusting(trust), discarded_if_empty(out), writing(output_folder(out)):
        return _train(with_precision(recipe), out, progress, observers)


def _train(recipe: Recipe, out: Path, progress: bool, observers: Sequence[Any]) -> RunFolder:
    recipe = with_teacher_classes(recipe)
    open_folder(recipe, out)
    check_recipe(recipe)
    # Whoever trains from a recipe runs what it names; the run that comes of it is no stranger.
    remember(code_names(recipe))
    job = open_job(recipe, out, observers)
    finished = handed_back(job)
    if finished is not None:
        _log.info(
            "%s is already finished. To retrain, delete it or name another folder with --out", out
        )
        complete_sets(job, finished)
        return finished
    return execute(job, progress)


def open_job(recipe: Recipe, out: Path, observers: Sequence[Any] = ()) -> Job:
    """Build what a recipe names: data, networks and observers.

    Raises:
        ValueError: Recipe, data or networks do not fit together.
        FileNotFoundError: A file named in the recipe is missing.
    """
    check_recipe(recipe)
    watching = [*build_observers(recipe), *observers]
    # Without a teacher, unlabelled images can neither be trained on nor be evaluated.
    train_set, val_set = (
        open_split(recipe.data, split, labelled=recipe.teacher is None)
        for split in ("train", "val")
    )
    classes = [str(c) for c in train_set.classes]
    student = build_student(recipe.student, len(classes), recipe.train.seed)
    teacher: nn.Module | None = None
    origin: dict[str, Any] = {}
    if recipe.teacher is not None:
        teacher, origin = load_teacher(recipe.teacher, classes)
    check_reading(recipe, classes)
    sets = open_sets(recipe, classes)
    return Job(recipe, out, student, teacher, origin, train_set, val_set, classes, watching, sets)


def rehearse(recipe: Recipe, classes: Sequence[str], whole: bool = True) -> list[str]:
    """What `train` would refuse before its first step; nothing is trained or written.

    Args:
        recipe: The recipe.
        classes: Names of its classes.
        whole: Also pass two crops through student, teacher and losses. Their files must be readable.

    Returns:
        One line per problem.
    """
    attempts: list[Callable[[], object]] = [
        lambda: check_recipe(recipe),
        lambda: build_student(recipe.student, len(classes), recipe.train.seed),
        lambda: _build_method(recipe, len(classes)),
    ]
    problems = []
    with quiet() if whole else nullcontext():  # what follows says the same again
        for attempt in attempts:
            problems += _problem_of(attempt)
    if whole and not problems:
        problems += _problem_of(lambda: _dry_run(open_job(recipe, Path())))
    return problems


def _dry_run(job: Job) -> None:
    with ExitStack() as ends:
        _build_distiller(job, ends, samples=False)


def _problem_of(attempt: Callable[[], object]) -> list[str]:
    try:
        attempt()
    except (ValueError, OSError) as error:
        return [" ".join(str(error).split())]
    return []


def _comparable(recipe: Recipe) -> dict[str, Any]:
    values = {**to_dict(recipe), "method": vars(recipe.chosen_method())}
    kept = {k: v for k, v in values.items() if k not in _NAMES | _READING}
    kept["train"] = {k: v for k, v in kept["train"].items() if k not in _FREE}
    for part, key in (("data", "name"), ("student", "model"), ("teacher", "model")):
        if kept.get(part):
            kept[part] = {**kept[part], key: _class_name(kept[part][key])}
    return kept


def _class_name(path: str | None) -> str | None:
    """The class name of a class of this package, since modules move between releases."""
    if path is None or not path.startswith("segdistill."):
        return path
    return f"segdistill.{path.rpartition('.')[2]}"


def _begun(out: Path) -> RunFolder | None:
    """The run in a folder; None if nothing was trained yet, so that its recipe may be replaced."""
    if not (out / "config.yaml").is_file():
        refuse_nameless(out)
        return None
    run = RunFolder(out)
    run.refuse_lost()
    trained = has_checkpoint(out) or (out / WEIGHTS["model"]).exists() or run.recorded
    return run if trained else None


def open_folder(recipe: Recipe, out: Path) -> None:
    """Check a run's folder against a recipe, before anything is opened.

    Raises:
        ValueError: The folder holds the run of another recipe.
    """
    run = _begun(out)
    if run is None:
        return
    # Parsed again, so that keys newer than the run have their defaults.
    old = _comparable(run.recipe())
    new = _comparable(recipe)
    if old != new:
        changed = ", ".join(sorted(_changed_keys(old, new)))
        raise ValueError(
            f"{out} holds the run of another recipe ({changed} differ). "
            "Name another folder with --out, or delete that folder"
        )


def handed_back(job: Job, but: Collection[str] = ()) -> RunFolder | None:
    """The run of a job if it is already finished; None if there are steps left to train.

    Args:
        job: The training.
        but: Parts of its identity that are not compared.

    Raises:
        IdentityDiffers: The folder holds a run with another student, teacher or data set.
        ValueError: Its weights are not the ones that its training wrote.
    """
    run = _begun(job.out)
    if run is None:
        return None
    check_resumable(run, job.identity, but)
    if run.recorded:
        _log.warning("%s is a record without weights; it is trained again", run.path)
    if not run.finished:
        return None
    run.check_weights()
    drop_checkpoints(run.path)  # left by a kill at the very end
    return run


def _changed_keys(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _changed_keys(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path


def execute(job: Job, progress: bool = True) -> RunFolder:
    """Run a job: dry pass, teacher audit, preparation, training, final evaluation."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    with (
        watching(job.out, rank, world, job.recipe.train.hang_after),
        doing("starting", job.out.name),
        ExitStack() as ends,
    ):
        return _execute(job, progress, ends)


def _build_distiller(
    job: Job, ends: ExitStack, samples: bool = True
) -> tuple[Distiller, Batch, list[TapRow]]:
    """The distiller of a job after its dry pass, the crops used for that, and the taps.

    Args:
        job: The training.
        ends: Closes the taps; networks of somebody's own outlive a training that failed.
        samples: Check every mask and the pixels of a few images, too.
    """
    config = job.recipe.train
    check_classes(job)
    check_encoder(job)
    if line := kept_in_eval(job.student):
        _log.warning("%s", line)
    refuse_unclear_orientation(job.train_set, *job.measured_on.values())
    if samples and os.environ.get("RANK", "0") == "0":
        check_shared(job)
        check_masks_of(job)
        # Afterwards, since a sample holds a mask, and each bad one should have been named.
        check_pixels(job)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and resolve_device(config.device) == "cuda":
        # Before taps are opened, since the conversion replaces modules.
        job.student = nn.SyncBatchNorm.convert_sync_batchnorm(job.student)  # type: ignore[no-untyped-call]
    torch.manual_seed(config.seed + 1)
    method = _build_method(job.recipe, len(job.classes))
    chosen = job.recipe.chosen_method()
    distiller = Distiller(job.student, method, job.teacher, chosen.labels, chosen.confidence)
    ends.callback(distiller.close)
    check_labels(job, distiller.method)
    check_mix(job, distiller.method)
    check_images(job, distiller.method)
    probe = probe_batch(job)
    check_channels(job, probe["image"].shape[1])
    with first_images(job, probe["image"]):
        check_outputs(job, probe["image"])
        rows = distiller.dry_pass(probe["image"])
    try_losses(distiller, probe["image"], probe["label"])
    return distiller, probe, rows


def _build_method(recipe: Recipe, classes: int) -> Method:
    settings = recipe.chosen_method()
    return build_method(settings.name, classes, settings.preset, to_dict(recipe)["terms"])


def _execute(job: Job, progress: bool, ends: ExitStack) -> RunFolder:
    config = job.recipe.train
    _ = job.identity  # computed before anything changes the student
    torch.use_deterministic_algorithms(config.deterministic)
    distiller, probe, rows = _build_distiller(job, ends)
    fabric = make_fabric(job.recipe, find_unused=_has_unused(distiller, probe, len(job.classes)))
    first = fabric.is_global_zero
    balance_classes(job, distiller.method, fabric)
    observers = Observers(job.observers if first else ())
    if config.channels_last:
        distiller.to(memory_format=torch.channels_last)
    fabric.to_device(distiller)
    if first:
        show_taps(rows, distiller.method)
        show_parts(distiller, config, fabric.world_size)
        show_mix(job, labelled_images(job, distiller.method))
        for line in idle_settings(job.recipe, distiller):
            _log.warning("%s", line)
    if job.teacher is not None:
        with doing("measuring the teacher"):
            audit_teacher(job, fabric, write=first)
    if first:
        record_identity(job)
        # Atomic: half a recipe would be mistaken for that of another run.
        write_atomically(job.out / "config.yaml", recipe_text(job.recipe))
        record_environment(job.out, fabric)
    fabric.barrier()
    evaluation = _evaluator(job, fabric)
    loop = Loop(
        fabric,
        distiller,
        config,
        job.out,
        make_loader(job, fabric, labelled_images(job, distiller.method)),
        Validation(
            run=lambda step: evaluation(step).figures(),
            every=config.val_every,
            save_best=lambda: save_network(job.student, job.out, "best") if first else None,
            score=(Evaluation if job.val_labelled else Agreement).score,
        ),
        label=job.out.name,
        observe=observers.row,
    )
    if first:
        frozen = [p for p in job.student.parameters() if not p.requires_grad]
        show_groups(loop.optimizer.param_groups, config.lr, frozen)
        show_average(config)
    resumed = loop.restore()
    observers.started(RunFolder(job.out))
    if resumed:
        _log.info("%s resumes after step %d of %d", job.out, loop.step, config.steps)
    else:
        with doing("preparing the losses on the frozen teacher"):
            prepare(job, distiller, loop, fabric)
        if not job.val_labelled:
            record_start(loop, evaluation(0), write=first)
    loop.run(progress)
    distiller.close()
    with doing("evaluating the student", f"step {loop.step}"):
        result = evaluation(loop.step)
    with doing("saving the network"):
        if first:
            record_network(job, result, loop)
        fabric.barrier()
    record_sets(job, fabric)
    run = RunFolder(job.out)
    observers.finished(run)
    return run


def _has_unused(distiller: Distiller, batch: Batch, classes: int) -> bool:
    """Whether a trainable parameter gets no gradient, which DDP needs to know."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    prepared = [n for n in distiller.method.terms if n not in distiller.terms_to_prepare()]
    for loss in losses_to_balance(distiller.method).values():
        # Not counted yet; any numbers tell which parameters get a gradient.
        loss.count_classes(torch.ones(classes).long())
    distiller.eval()
    values = distiller(batch["image"], batch["label"], only=prepared)
    sum(values.values()).backward()  # type: ignore[union-attr]
    unused = any(p.requires_grad and p.grad is None for p in distiller.parameters())
    distiller.zero_grad(set_to_none=True)
    distiller.train()
    return unused


def _evaluator(job: Job, fabric: Fabric) -> Callable[[int], Evaluation]:
    """Evaluate the student, caching the result of the latest step."""
    results: dict[int, Evaluation] = {}

    def run(step: int) -> Evaluation:
        if step not in results:
            results.clear()
            # Running statistics differ between processes; the first process's are saved, so they are measured.
            share_state(fabric, job.student)
            results[step] = evaluate_with(job, job.student, fabric)
        return results[step]

    return run
