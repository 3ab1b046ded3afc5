"""Measurements of the networks in a report, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Panel:
    """One image with its label and each network's prediction."""

    name: str
    image: np.ndarray
    """h w 3, uint8"""
    label: np.ndarray
    """h w class ids, 255 for ignored"""
    predictions: Mapping[str, np.ndarray]
    """label of a run (teacher, control, a method) -> h w class ids"""


@dataclass(frozen=True)
class Distances:
    """Distances between the class tokens of one network."""

    label: str
    table: np.ndarray
    """k k, NaN for classes with too few cells"""
    within_between: float | None = None
    """variance within classes divided by variance between them"""


@dataclass(frozen=True)
class PositionMasks:
    """The output of position readouts on one image, and the ramps they were fitted to."""

    name: str
    ramps: np.ndarray
    """2 h w: the x and the y ramp, 0 to 1"""
    masks: Mapping[str, np.ndarray]
    """label of a run -> 2 h w, 0 to 1"""
    r2: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """label of a run -> R² of x and y on held-out images"""


@dataclass(frozen=True)
class Findings:
    """All measurements; those that could not be made are empty."""

    panels: Sequence[Panel] = ()
    panel_rule: str = ""
    """how the images of the panels were chosen"""
    distances: Sequence[Distances] = ()
    distances_note: str = ""
    """data set, tap and seed of the distances"""
    positions: Sequence[PositionMasks] = ()
    positions_note: str = ""
    """data that the readout was fitted to and scored on"""
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """label of a run -> cost of its network, with latencies measured side by side"""
    notes: Sequence[str] = ()
    """measurements that could not be made, with reasons"""
