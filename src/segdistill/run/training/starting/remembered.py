"""What was worked out at the start of an earlier training, found again by all that it depends on."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import segdistill
from segdistill.data.caching import cache_folder
from segdistill.data.reading.opening import stamp
from segdistill.distillation.taps import uncompiled
from segdistill.run.environment import describe_environment
from segdistill.run.training.job import Job

_SOURCE, _BEGUN = Path(segdistill.__file__).parent, time.time()
_LIBRARIES = (
    "segdistill.",
    "torch.nn.modules.",
    "torch.nn.functional.",
    "torch._C.",
    "timm.",
    "torchvision.",
)
"""Whose code is known by a version, or by its files in our own case."""
_UNUSED_SECONDS = 60 * 24 * 3600


def question(
    job: Job,
    fabric: Fabric,
    what: str,
    networks: Collection[str],
    splits: Collection[str],
    **further: object,
) -> str | None:
    """A digest of all that something depends on; None where code of somebody's own takes part, or a file is not known.

    Args:
        job: The training. Its classes count, and of the rest what is named.
        fabric: Its device counts. Over several processes nothing is remembered.
        what: What is asked.
        networks: Which of `student` and `teacher` count, with their weights and settings.
        splits: Which of `train` and `val` count, by content.
        further: What else it depends on, plain values.
    """
    found: dict[str, Any] = {"student": job.student, "teacher": job.teacher}
    sets: dict[str, Any] = {"train": job.train_set, "val": job.val_set}
    known = all(found[name] is not None and known_code(found[name]) for name in networks) and all(
        type(sets[split]).__module__.startswith("segdistill.data.") for split in splits
    )
    digests = [getattr(job.identity, f"{split}_data") for split in splits]
    if fabric.world_size > 1 or not known or None in digests or _edited():
        return None
    starts = {"student": job.identity.student_start, "teacher": job.identity.teacher}
    parts = (job.identity.taps, job.identity.inputs, job.identity.settings)
    config = job.recipe.train
    environment = describe_environment(fabric.device)
    asked = {
        "what": what,
        "code": _own_code(),
        "networks": [
            (name, starts[name], *(part.get(name) for part in parts)) for name in networks
        ],
        "data": [*digests, job.classes, repr(job.recipe.data)],
        "environment": environment,
        "numbers": [config.precision, config.channels_last, config.deterministic, *_numbers()],
        "compiled": [uncompiled(found[name]) is not found[name] for name in networks],
        "further": further,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=repr).encode()).hexdigest()


def known_code(module: nn.Module) -> bool:
    """Whether all that a module computes with is code of ours or of known libraries."""
    return all(_is_known(one) for one in uncompiled(module).modules())


def _is_known(module: nn.Module) -> bool:
    """Whether the class, the hooks and whatever was put on the module itself are code of known libraries."""
    called = [type(module), *module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    called += [value for value in vars(module).values() if callable(value)]
    return all(_home(one).startswith(_LIBRARIES) for one in called)


def _home(called: object) -> str:
    """Where a class or function, or the class of another object, was defined."""
    home = getattr(called, "__module__", None)
    return f"{home if isinstance(home, str) else type(called).__module__}."


@cache
def _own_code() -> str:
    """A digest of what is installed of this package, so that an edited copy is another one."""
    files = [f"{path.relative_to(_SOURCE)} {stamp(path)}" for path in sorted(_SOURCE.rglob("*.py"))]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def _edited() -> bool:
    """Whether this package was edited while it runs: what runs is then not what lies there."""
    return any(path.stat().st_mtime > _BEGUN for path in _SOURCE.rglob("*.py"))


def _numbers() -> list[object]:
    """What torch computes by, as a program may have set it."""
    backends = torch.backends
    return [
        torch.get_float32_matmul_precision(),
        str(torch.get_default_dtype()),
        backends.cudnn.allow_tf32,
        backends.cudnn.benchmark,
        backends.mkldnn.enabled,
    ]


def recall(asked: str | None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `keep` was told for a question: tensors and figures; None if nothing, or nothing readable."""
    if asked is None:
        return None
    with suppress(OSError, RuntimeError, SafetensorError, ValueError, KeyError, TypeError):
        with safe_open(_file(asked), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            figures = json.loads(file.metadata()["figures"])
        with suppress(
            OSError
        ):  # somebody else's file, or one that another process has just removed
            os.utime(_file(asked))  # as used today
        return (tensors, figures) if isinstance(figures, dict) else None
    return None


def keep(asked: str | None, tensors: Mapping[str, Tensor], figures: Mapping[str, Any]) -> None:
    """Remember tensors and figures for a question; where nothing can be written, nothing is kept."""
    if asked is None:
        return
    with suppress(OSError, RuntimeError, SafetensorError):
        target = _file(asked)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Random, as other processes may write the same one.
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
            save_file(plain, temporary, metadata={"figures": json.dumps(dict(figures))})
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _forget_unused(target.parent)


def _forget_unused(folder: Path) -> None:
    """Remove what no start has used for long; a name holds a digest of code that may be gone."""
    for path in folder.iterdir():  # temporary files of killed processes, too
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
                path.unlink()


def _file(asked: str) -> Path:
    return cache_folder() / "starts" / f"{asked}.safetensors"
