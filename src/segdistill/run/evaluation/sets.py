"""Evaluation sets by name: what each measurement is of, and taking it over where nothing has changed."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from segdistill.activity import doing
from segdistill.config import DataConfig, Recipe, to_dict
from segdistill.run.contents import SETS, read_json
from segdistill.run.evaluation.evaluate import Absent, Evaluation
from segdistill.run.evaluation.protocol import Protocol
from segdistill.run.folder import WEIGHTS, output_folder, write_json
from segdistill.run.identity.digests import state_digest

_log = logging.getLogger(__name__)


def path_of(folder: Path, name: str) -> Path:
    """The file of a run's metrics on a set."""
    return folder / SETS / f"{name}.json"


@dataclass(frozen=True)
class Network:
    """A network that is measured, and what its output depends on.

    Attributes:
        model: Gives the network with its trained weights; called only if something is measured.
        declared: The network, perhaps with other weights, for what it declares about itself.
        weights: Digest of its trained weights; None: unknown.
        more: Whatever else its output depends on.
    """

    model: Callable[[], nn.Module]
    declared: nn.Module
    weights: str | None
    more: Mapping[str, Any] = field(default_factory=dict)


def teacher_network(
    teacher: nn.Module, origin: Mapping[str, Any], weights: str | None = None
) -> Network:
    """A teacher, told apart by its weights and by how images and classes reach it.

    Args:
        teacher: The teacher.
        origin: Its source, as `load_teacher` records it.
        weights: Digest of its weights, if known.
    """
    more: dict[str, Any] = {"input": repr(getattr(teacher, "input", None))}
    more |= {key: value for key, value in origin.items() if key in ("labels", "shown")}
    return Network(lambda: teacher, teacher, weights or state_digest(teacher), more)


@dataclass(frozen=True)
class Measuring:
    """Measures a run's networks on sets, under one protocol.

    Attributes:
        folder: The run's folder.
        protocol: How images are shown.
        absent: The rule for absent classes.
        student: The run's network.
        teacher: Its teacher, measured beside it; None: none.
        measure: Measures a network on a data set.
        agreed: Gives all processes the first one's value.
        write: Whether this process writes.
    """

    folder: Path
    protocol: Protocol
    absent: Absent
    student: Network
    teacher: Network | None
    measure: Callable[[nn.Module, Any], Evaluation]
    agreed: Callable[[Any], Any] = lambda value: value
    write: bool = True

    def on(self, name: str, dataset: Any, data: DataConfig, digest: str | None) -> dict[str, Any]:
        """The metrics on a set: those on record where they are of the same, otherwise measured and written.

        Args:
            name: Name of the set.
            dataset: Its images and labels.
            data: What they were opened from.
            digest: Digest of the set; None: it cannot be told from others, so it is measured again.
        """
        of = self.of(self.student, digest)
        known = self.agreed(_student_on_record(self.folder, name, of, self.teacher is not None))
        if known is not None:
            return dict(known)
        with doing(f"measuring on {name}"):
            result = self.measure(self.student.model(), dataset)
            teacher = self._teacher(name, dataset, digest)
        record = _record(result, of, data, teacher)
        if self.write:
            output_folder(self.folder / SETS)
            write_json(path_of(self.folder, name), record)
            _log.info("%s: %s on %s", self.folder, result.headline(), name)
        return record

    def _teacher(self, name: str, dataset: Any, digest: str | None) -> dict[str, Any] | None:
        """The teacher's metrics on a set, taken over from any run beside this one that measured the same."""
        if self.teacher is None:
            return None
        of = self.of(self.teacher, digest)
        known = self.agreed(_teacher_on_record(_beside(self.folder), name, of))
        if known is not None:
            return dict(known)
        values = self.measure(self.teacher.model(), dataset).to_json()
        return {key: {**values, "of": of}[key] for key in _OF_TEACHER}

    def of(self, network: Network, digest: str | None) -> dict[str, Any]:
        """What a measurement of a network is of, as plain values."""
        protocol = {**self.protocol.describe(network.declared), "absent": self.absent}
        return {
            "weights": network.weights,
            "data": digest,
            "protocol": protocol,
            **network.more,
        }


_OF_TEACHER = ("miou", "iou", "pixel_accuracy", "confusion", "images", "of")


def _same(one: Any, other: Mapping[str, Any]) -> bool:
    """Whether two measurements are of the same weights, data and protocol, all of them known."""
    return bool(one == other) and None not in (other["weights"], other["data"])


def _student_on_record(
    folder: Path, name: str, of: Mapping[str, Any], taught: bool
) -> dict[str, Any] | None:
    record = _readable(path_of(folder, name)) or {}
    return record if _same(record.get("of"), of) and (not taught or "teacher" in record) else None


def _teacher_on_record(
    folders: Iterable[Path], name: str, of: Mapping[str, Any]
) -> dict[str, Any] | None:
    for folder in folders:
        found = (_readable(path_of(folder, name)) or {}).get("teacher")
        if found is not None and _same(found.get("of"), of):
            return dict(found)
    return None


def _beside(folder: Path) -> list[Path]:
    """A run's folder and those beside it, which are the other runs of a comparison."""
    others = sorted(path.parent for path in folder.parent.glob(f"*/{SETS}"))
    return [folder, *(other for other in others if other != folder)]


def _record(
    result: Evaluation, of: Mapping[str, Any], data: DataConfig, teacher: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The content of `evaluations/NAME.json`."""
    return {
        **result.to_json(),
        "weights": WEIGHTS["model"],
        "weights_sha256": of["weights"],
        "split": data.val_split,
        "data": to_dict(Recipe(data=data))["data"],
        "of": dict(of),
        **({"teacher": dict(teacher)} if teacher is not None else {}),
    }


def _readable(path: Path) -> dict[str, Any] | None:
    """The content of a file; a damaged one is measured again."""
    try:
        return read_json(path)
    except ValueError as error:
        _log.warning("%s", error)
        return None
