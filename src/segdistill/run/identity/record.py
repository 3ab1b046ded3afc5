"""What made a run, by content: written before step 1, checked by whatever reads the run."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from segdistill import __version__
from segdistill.data.dataset import list_names
from segdistill.distillation.taps import tap_paths
from segdistill.models.foreign.wrapped import read_as, wrap
from segdistill.run.contents import Damaged, read_json
from segdistill.run.folder import WEIGHTS, RunFolder
from segdistill.run.identity.data import data_digest
from segdistill.run.identity.digests import file_digests, settings_of, state_digest
from segdistill.trust import code_digests

_log = logging.getLogger(__name__)

FILE = "identity.json"
TRAINING_SEMANTICS = 4
"""Raised by hand whenever a change of the code alters what a training results in, by more than rounding.

1: everything before a part of a batch was weighed by what each term counts.
2: parts of a batch and processes add up to the whole batch's loss.
3: taps are aligned, and labels read, where the networks' cells lie.
4: the position term leaves out an axis in which the student's start knows as much as the teacher.
"""
TITLES = {
    "student_start": "the student's start weights",
    "teacher": "the teacher's weights",
    "train_data": "the training data",
    "val_data": "the validation data",
    "classes": "the classes",
    "taps": "the taps",
    "inputs": "the input normalisation",
}
"""What is compared, and what messages call it."""


class IdentityDiffers(ValueError):
    """What is read is not what the run was made of, or what it wrote."""


@dataclass(frozen=True)
class Identity:
    """What a run is made of. Digests are SHA-256 in hexadecimal.

    Attributes:
        student_start: Digest of the student's state before step 1.
        teacher: Digest of the teacher's state; None without a teacher.
        train_data: Digest of the training data; None where it could not be checked.
        val_data: The same for the validation data.
        classes: Names of the classes.
        taps: Tap names and module paths, of student and teacher, and what `wrap` was told of their output.
        inputs: Input normalisations, of student and teacher.
        training_semantics: That of the code that began the run.
        version: Version of the package that began it; not compared.
        settings: What else student and teacher compute with, see `settings_of`; empty in older runs.
        code: Digest of each module of the user's own that the recipe names; a difference is a warning.
    """

    student_start: str
    teacher: str | None
    train_data: str | None
    val_data: str | None
    classes: list[str]
    taps: dict[str, dict[str, str]]
    inputs: dict[str, str]
    training_semantics: int = TRAINING_SEMANTICS
    version: str = __version__
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for identity.json."""
        return asdict(self)

    def differences(self, other: "Identity", but: Collection[str] = ()) -> list[str]:
        """What differs, in words; what either could not check is left out, and the keys of `but`."""
        changed = [
            title
            for key, title in TITLES.items()
            if key not in but
            and (one := getattr(self, key)) != (two := getattr(other, key))
            and not (key.endswith("_data") and None in (one, two))
        ]
        return changed if "settings" in but else changed + self._settings_that_differ(other)

    def _settings_that_differ(self, other: "Identity") -> list[str]:
        changed = []
        for name in sorted(self.settings.keys() & other.settings.keys()):
            one, two = self.settings[name], other.settings[name]
            keys = [key for key in sorted(one.keys() & two.keys()) if one[key] != two[key]]
            # Other layers have other attributes, too.
            keys = ["layers"] if "layers" in keys else keys
            changed += [f"the {name}'s {list_names(keys)}"] * bool(keys)
        return changed


def identify(
    student: nn.Module,
    teacher: nn.Module | None,
    train_set: Any,
    val_set: Any,
    classes: Sequence[str],
    code: Iterable[str | None] = (),
) -> Identity:
    """The identity of a training that is about to begin; the networks are only read.

    Args:
        student, teacher: The networks.
        train_set, val_set: The data.
        classes: Names of its classes.
        code: Dotted paths of the classes that the recipe names.

    Raises:
        OSError: A file of the data cannot be read.
        ValueError: A sample is bad, or a network's parameters have no shape yet.
    """
    networks = {"student": student, **({"teacher": teacher} if teacher is not None else {})}
    for owner, model in networks.items():
        _require_shapes(owner, model)
    return Identity(
        student_start=state_digest(student),
        teacher=None if teacher is None else state_digest(teacher),
        train_data=data_digest(train_set, "training data"),
        val_data=data_digest(val_set, "validation data"),
        classes=[str(name) for name in classes],
        taps={n: {**tap_paths(model), **read_as(model)} for n, model in networks.items()},
        inputs={name: repr(getattr(model, "input", None)) for name, model in networks.items()},
        settings={name: settings_of(model) for name, model in networks.items()},
        code=code_digests(code),
    )


def _require_shapes(owner: str, model: nn.Module) -> None:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"the {owner} has no shape for {lazy[0]} yet (lazy modules); expected a network that has seen an image. "
            "Show it one before, such as torch.zeros(1, 3, 64, 64)"
        )


def read_identity(run: RunFolder) -> Identity | None:
    """What a run recorded of itself; None, with a warning, where it was made before runs did.

    Raises:
        Damaged: The file does not hold an identity.
    """
    values = read_json(run.path / FILE)
    if values is None:
        _log.warning(
            "%s carries no digests (it has no identity.json, as runs of older versions): what it reads is not checked",
            run.path,
        )
        return None
    known = {one.name for one in fields(Identity)}
    try:
        return Identity(**{key: value for key, value in values.items() if key in known})
    except TypeError as error:
        raise Damaged(
            f"{run.path / FILE} is damaged ({error}). Restore it, or retrain the run"
        ) from None


def semantics_of(run: RunFolder) -> int:
    """The training semantics that a run was made under; 1 for runs that recorded none."""
    return int((read_json(run.path / FILE) or {}).get("training_semantics", 1))


def check_resumable(run: RunFolder, now: Identity, but: Collection[str] = ()) -> None:
    """Refuse to go on with, or hand back, a run that was made of something else.

    Args:
        run: The run that stands in the folder.
        now: What the training that is asked for is made of.
        but: Keys that are not compared.

    Raises:
        IdentityDiffers: Something differs, or an unfinished run was begun under other semantics.
    """
    semantics = semantics_of(run)
    if semantics != TRAINING_SEMANTICS and not run.measured:
        raise IdentityDiffers(
            f"{run.path} was begun under training semantics {semantics}; expected "
            f"{TRAINING_SEMANTICS}, as trainings of this version give other results. Choose another "
            "out, or resume it with the version that began it"
        )
    if semantics != TRAINING_SEMANTICS:
        _log.warning(
            "%s was trained under training semantics %d, and this version trains under %d: do not "
            "compare it with new runs",
            run.path,
            semantics,
            TRAINING_SEMANTICS,
        )
    recorded = read_identity(run)
    if recorded is not None and recorded.version != now.version:
        _log.warning(
            "%s was begun by version %s, this is %s", run.path, recorded.version, now.version
        )
    if recorded is not None and (edited := _edited(recorded.code, now.code)):
        _log.warning(
            "%s: the code of %s has changed since it was begun, which only a retraining would show",
            run.path,
            list_names(edited),
        )
    if recorded is not None and (changed := recorded.differences(now, but)):
        raise IdentityDiffers(
            f"{run.path} holds another experiment ({', '.join(changed)} differ{_s(changed)}). Choose "
            f"another out, remove that folder, or restore what it was made of{_hint(changed)}"
        )


def _edited(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [module for module in before.keys() & now.keys() if before[module] != now[module]]


def _s(names: Sequence[str]) -> str:
    plural = len(names) > 1 or names[0].endswith("s") or "," in names[0]
    return "" if plural else "s"


def _hint(changed: Sequence[str]) -> str:
    if changed != [TITLES["student_start"]]:
        return ""
    return "; for a student drawn without a seed, seed torch before building it, or pass same_start=False"


def check_split(run: RunFolder, dataset: Any, split: str = "val") -> None:
    """Refuse data that is not what the run was made of.

    Args:
        run: The run.
        dataset: Its data as it is now.
        split: `train` or `val`.

    Raises:
        IdentityDiffers: The data differs.
    """
    recorded = read_identity(run)
    before = None if recorded is None else getattr(recorded, f"{split}_data")
    now = None if before is None else data_digest(dataset, TITLES[f"{split}_data"])
    if now is not None and now != before:
        raise IdentityDiffers(
            f"{run.path}: {TITLES[f'{split}_data']} differs from what the run was made of (names, bytes "
            "or mapping). Restore it, or retrain the run on the data as it is now"
        )


def check_network(run: RunFolder, model: nn.Module, num_classes: int, given: bool) -> None:
    """Refuse a network that reads its images, or computes, otherwise than the one that the run trained.

    Weights of the same names and shapes fit into it all the same.

    Args:
        run: The run.
        model: The network that is to get the run's weights; a plain module reads plain RGB in 0..1.
        num_classes: Channels of its logits.
        given: Whether the user passes it; otherwise it was built from model.json.

    Raises:
        IdentityDiffers: Its input or its settings differ.
    """
    recorded = read_identity(run)
    if recorded is None:
        return
    if recorded.classes != run.model_info()["classes"]:
        raise IdentityDiffers(
            f"{run.path / 'model.json'} names other classes than {FILE}, as in training. Restore the file"
        )
    what = "model=" if given else f"the network that {run.path / 'model.json'} builds"
    remedy = (
        "Pass it as it was in training"
        if given
        else "Restore the file, or read the run with the version that trained it"
    )
    if getattr(model, "input", None) is None:
        model = wrap(model, num_classes, taps={})
    reads, read = repr(model.input), recorded.inputs.get("student")
    if read not in (None, reads):
        raise IdentityDiffers(
            f"{what} has the input {reads}; expected {read}, as in the training of {run.path}. "
            f"{'Pass segdistill.wrap(module, .., input=..) as it was then' if given else remedy}"
        )
    now = replace(recorded, settings={"student": settings_of(model)})
    if changed := recorded.differences(now):
        raise IdentityDiffers(
            f"{what} differs from the one that {run.path} trained ({', '.join(changed)}). {remedy}"
        )


def check_teacher(run: RunFolder) -> None:
    """Refuse a teacher that was retrained or replaced since it taught the run.

    Nothing is said where the run has no teacher, recorded none, or its file is gone, nor of a record
    without weights, which another machine may have left.

    Raises:
        IdentityDiffers: The weights at the teacher's path are others than it taught with.
    """
    if run.recorded:
        return
    config, audit = run.recipe().teacher, run.teacher() or {}
    file = config and (config.weights if config.run is None else f"{config.run}/{WEIGHTS['model']}")
    if not file or not audit.get("sha256") or not Path(file).is_file():
        return
    if file_digests([Path(file)]) != [audit["sha256"]]:
        raise IdentityDiffers(
            f"{run.path}: the teacher's weights at {file} differ from those that taught the run. Restore "
            "them, or retrain the run with the teacher as it is now"
        )


def check_comparable(runs: Sequence[tuple[str, RunFolder]]) -> None:
    """Refuse to compare runs that differ in more than their methods and seeds.

    Runs of one label must have the same teacher, data, classes, taps and inputs; all must have been
    measured on the same validation data and trained under the same semantics. The teacher of a record without
    weights may be another machine's.

    Args:
        runs: Finished students and controls, each with its label; no teachers.

    Raises:
        IdentityDiffers: Two of them differ; both are named.
    """
    known = [(label, run, found) for label, run in runs if (found := read_identity(run))]
    semantics = {semantics_of(run): run for _, run in runs}
    if len(semantics) > 1:
        (lower, first), (higher, second) = sorted(semantics.items())[:2]
        raise IdentityDiffers(
            f"{first.path} and {second.path} were trained under different semantics ({lower} and {higher}); "
            "expected one version's results. Retrain the older runs to compare them"
        )
    for one, other in _pairs(known):
        but = (
            {"student_start"}
            if one[0] == other[0]
            else {*TITLES, "settings"} - {"val_data", "classes"}
        )
        if one[1].recorded or other[1].recorded:
            # Another machine's teacher has other bits; each seed keeps to one, and tables say which.
            but |= {"teacher"}
        if changed := one[2].differences(other[2], but):
            raise IdentityDiffers(
                f"{one[1].path} and {other[1].path} cannot be compared: {', '.join(changed)} "
                f"differ{_s(changed)}. Compare runs that share them"
            )


def _pairs(
    known: Sequence[tuple[str, RunFolder, Identity]],
) -> Iterator[tuple[tuple[str, RunFolder, Identity], tuple[str, RunFolder, Identity]]]:
    """Each run with the first of all, and with the first of its label."""
    firsts: dict[str, tuple[str, RunFolder, Identity]] = {}
    for entry in known:
        yield known[0], entry
        yield firsts.setdefault(entry[0], entry), entry
