"""What the networks of a report were measured to do, as plain data: no page, no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Panel:
    """One image with its label and what each network sees in it."""

    name: str
    image: np.ndarray
    """h w 3, uint8"""
    label: np.ndarray
    """h w class ids, 255 where there is none"""
    predictions: Mapping[str, np.ndarray]
    """label of a run (teacher, control, a method) -> h w class ids"""


@dataclass(frozen=True)
class Distances:
    """Distances between the class tokens of one network."""

    label: str
    table: np.ndarray
    """k k, NaN for classes that were not seen often enough"""
    within_between: float | None = None
    """variance within classes over variance between them"""


@dataclass(frozen=True)
class PositionMasks:
    """What a position readout sees in one image, beside the ramps it was fitted to."""

    name: str
    ramps: np.ndarray
    """2 h w: the x and the y ramp, 0 to 1"""
    masks: Mapping[str, np.ndarray]
    """label of a run -> 2 h w, 0 to 1"""
    r2: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """label of a run -> R² of x and y over the images the readout was scored on"""


@dataclass(frozen=True)
class Findings:
    """Everything that running the networks has shown; what could not be measured is empty."""

    panels: Sequence[Panel] = ()
    panel_rule: str = ""
    """how the images of the panels were chosen"""
    distances: Sequence[Distances] = ()
    distances_note: str = ""
    """which set, tap and seed the distances are from"""
    positions: Sequence[PositionMasks] = ()
    positions_note: str = ""
    """what the readout was fitted to and scored on"""
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """label of a run -> its network's cost, latencies measured side by side"""
    notes: Sequence[str] = ()
    """what could not be measured, and why"""
