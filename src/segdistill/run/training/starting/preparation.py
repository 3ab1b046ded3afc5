"""Let losses fit their own modules to the frozen teacher, once, before step 1."""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segdistill.activity import get_on
from segdistill.data.loader import Batch, training_loader
from segdistill.distillation.distiller import Distiller
from segdistill.run.folder import write_json
from segdistill.run.identity.digests import settings_of, state_digest
from segdistill.run.training.batches import augmentation
from segdistill.run.training.job import Job, share_state
from segdistill.run.training.loop import Loop
from segdistill.run.training.starting.remembered import keep, known_code, question, recall

_log = logging.getLogger(__name__)
_BYTES = 2**28


def prepare(job: Job, distiller: Distiller, loop: Loop, fabric: Fabric) -> None:
    """Prepare the losses on as many training batches as fit in memory, and record what they measured.

    What an earlier training of the same networks, data and losses prepared is taken from there, to the bit,
    and so is the time that it took.
    """
    names = distiller.terms_to_prepare()
    if not names:
        return
    start = time.perf_counter()
    asked = _question(job, distiller, fabric)
    if (earlier := recall(asked)) is not None and _restored(distiller, *earlier):
        figures, loop.preparation_seconds = earlier[1]["terms"], earlier[1]["seconds"]
        for text in earlier[1]["warnings"]:
            _log.warning("%s", text)
        _log.info(
            "%s: prepared as by an earlier start of the same networks and data", ", ".join(names)
        )
    else:
        _log.info("preparing %s on the frozen teacher", ", ".join(names))
        with _warnings() as warned:
            figures = distiller.prepare(_on_device(_batches(job), fabric), memory=_BYTES)
        seconds = loop.preparation_seconds = time.perf_counter() - start
        kept = {"terms": figures, "seconds": seconds, "warnings": warned}
        keep(asked, _states(distiller), kept)
    share_state(fabric, distiller.losses)
    if fabric.is_global_zero:
        write_json(job.out / "preparation.json", figures)
        for name, values in figures.items():
            text = "  ".join(f"{key} {value:.3g}" for key, value in values.items())
            _log.info("%s: %s", name, text)
            loop.record({"kind": "preparation", "step": 0, "term": name, **values})


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the losses warn of meanwhile, which a later start has to hear as well."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger, listener = logging.getLogger("segdistill.losses"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield heard
    finally:
        logger.removeHandler(listener)


def _batches(job: Job) -> Iterable[Batch]:
    config = job.recipe.train
    loader: Iterable[Batch] = training_loader(
        job.train_set,
        augmentation(job),
        batch=config.batch,
        seed=config.seed,
        start_step=0,
        # Within one epoch, so that held-out batches contain other images.
        steps=min(64, max(4, len(job.train_set) // config.batch)),
        num_classes=len(job.classes),
    )
    return loader


def _on_device(loader: Iterable[Batch], fabric: Fabric) -> Iterator[Tensor]:
    for number, batch in enumerate(loader, 1):
        get_on(f"batch {number}")
        yield fabric.to_device(batch["image"])


def _question(job: Job, distiller: Distiller, fabric: Fabric) -> str | None:
    """What the preparation depends on; None where a loss is somebody's own."""
    losses = _prepared(distiller)
    if not all(known_code(loss) for loss in losses.values()):
        return None
    config = job.recipe.train
    return question(
        job,
        fabric,
        "preparation",
        ("student", "teacher"),
        ("train",),
        batch=config.batch,
        seed=config.seed,
        generator=_drawn(fabric.device),
        augment=repr(augmentation(job)),
        losses={name: (settings_of(loss), state_digest(loss)) for name, loss in losses.items()},
        alignments=[
            (name, state_digest(one))
            for name, one in distiller.alignments.items()
            if name in losses
        ],
        terms=[
            (name, term.on, term.cells)
            for name, term in distiller.method.terms.items()
            if name in losses
        ],
    )


def _drawn(device: torch.device) -> str:
    """The state of torch's generators, from which a student's dropout is drawn."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return hashlib.sha256(b"".join(state.numpy().tobytes() for state in states)).hexdigest()


def _prepared(distiller: Distiller) -> dict[str, nn.Module]:
    return {name: distiller.losses[name] for name in distiller.terms_to_prepare()}


def _states(distiller: Distiller) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, loss in _prepared(distiller).items()
        for key, value in loss.state_dict().items()
    }


def _restored(
    distiller: Distiller, tensors: Mapping[str, Tensor], figures: Mapping[str, Any]
) -> bool:
    """Whether what was kept fits; only then the losses are changed."""
    now = _states(distiller)
    fits = now.keys() == tensors.keys() and all(
        now[key].shape == tensors[key].shape and now[key].dtype == tensors[key].dtype for key in now
    )
    if not fits or not {"terms", "seconds", "warnings"} <= figures.keys():
        return False
    for name, loss in _prepared(distiller).items():
        first = f"{name}."
        loss.load_state_dict(
            {key.removeprefix(first): tensors[key] for key in now if key.startswith(first)}
        )
    return True
