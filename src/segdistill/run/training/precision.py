"""Which precision `auto` is on this machine."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from segdistill.config import Recipe
from segdistill.run.opening import resolve_device

_log = logging.getLogger(__name__)
_CPU_FACTS = Path("/proc/cpuinfo")


def with_precision(recipe: Recipe) -> Recipe:
    """The recipe with the precision that `auto` is here, which the log tells; any other as it is.

    So a run's files name a precision, and a run that was begun in one is not resumed in another.
    """
    if recipe.train.precision != "auto":
        return recipe
    found, why = _best(resolve_device(recipe.train.device))
    _log.info("train.precision is auto: %s, as %s", found, why)
    return replace(recipe, train=replace(recipe.train, precision=found))


def _best(device: str) -> tuple[Literal["32", "bf16"], str]:
    """bf16 where it is fast, and the reason. Without matrix units it takes up to three times as long as 32."""
    gpu = device == "cuda"
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else _has_matrix_units()
    units = f"this {'GPU' if gpu else 'processor'} has {'' if fast else 'no '}matrix units for bf16"
    return ("bf16" if fast else "32"), units


def _has_matrix_units() -> bool:
    """Whether Linux lists AMX for bf16; elsewhere nothing tells, so no."""
    try:
        text = _CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in text.split()
