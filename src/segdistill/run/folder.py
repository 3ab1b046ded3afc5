"""A run: the folder that a training leaves behind and every later command reads."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from segdistill.config import Recipe, map_code_names
from segdistill.run.contents import SETS, Damaged, is_there, read_json, read_metrics
from segdistill.run.recipe import parse_recipe
from segdistill.trust import FromRun, from_run
from segdistill.yaml_files import read_yaml

_log = logging.getLogger(__name__)
TRANSFER = "transfer.json"
CHECKPOINTS = (".resume.ckpt.new", "resume.ckpt", "resume.previous.ckpt")
"""All files that may hold the state of an unfinished run, newest first."""
WEIGHTS = {"model": "model.safetensors", "best": "best.safetensors"}
_RESULT = ("model.safetensors", "model.json", "evaluation.json")
"""What a training leaves at its end, in the order of writing."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary file, sync, rename: a kill leaves the old file or the new one, never a partial one.

    Raises:
        OSError: The file cannot be written, for example because the disk is full; no partial file is
            left, and the message gives the space needed.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:  # an interrupt, too
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _not_written(path, len(data), error) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename durable, unless the file system cannot sync folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _not_written(path: Path, needed: int, error: OSError) -> OSError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OSError(error.errno, f"cannot write {path} ({error.strerror}). Check the folder")
    free = shutil.disk_usage(path.parent).free
    return OSError(
        error.errno,
        f"cannot write {path} ({error.strerror}): {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB "
        "free. Free some space and repeat the command; earlier files are kept",
    )


def write_json(path: Path, values: Any) -> None:
    """Write indented JSON atomically."""
    write_atomically(path, json.dumps(values, indent=1) + "\n")


def output_folder(out: str | Path) -> Path:
    """Create a folder if it does not exist, and check that it can be written to.

    Raises:
        ValueError: It cannot be written to.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One name per process, since several may check at once.
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}). Name another folder"
        ) from None
    return folder


@contextmanager
def discarded_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder on failure if it did not exist before and is empty, with parents made for it."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first that is not empty ends it
            for path in made:
                path.rmdir()
        raise


def inside(folder: Path, name: str) -> Path:
    """The path of a file to write, its name taken from somebody's file.

    Raises:
        ValueError: The name leads out of the folder, as `../name` and `/name` do.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of {folder}; expected the name of a file inside it")
    return path


# Parsing takes a hundred times longer than reading, and a report opens each run many times.
@lru_cache(maxsize=256)
def _parsed(run: str, content: bytes) -> Recipe:
    """The recipe of a run; `content` is that of its config.yaml, so that a new file is parsed anew."""
    recipe = parse_recipe(RunFolder(run).config(), name=str(Path(run) / "config.yaml"))
    return map_code_names(recipe, lambda name: FromRun(name, run))


def _no_run(path: Path) -> str:
    """Why there is no run at a path, and what to name."""
    if path.is_dir():
        inside = sorted(config.parent.name for config in path.glob("*/config.yaml"))
        if inside:
            more = f", and {len(inside) - 1} more" if inside[1:] else ""
            return f"it holds runs. Name one of them, such as {path / inside[0]}{more}"
        return "it has no config.yaml. Name a folder written by `segdistill train`"
    if not path.is_file():
        return "there is no such folder. Name a folder written by `segdistill train`"
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return f"these are the weights of {path.with_suffix('.xml')}. Where files are read, name that one"
    if (path.parent / "config.yaml").is_file():
        return f"it is a file of the run {path.parent}. Name that folder"
    return "it is a file. Name a folder written by `segdistill train`"


class RunFolder:
    """Reads the files of a run.

    Args:
        path: The folder.

    Raises:
        FileNotFoundError: The folder is not a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._config: dict[str, Any] | None = None
        if not (self.path / "config.yaml").is_file():
            raise FileNotFoundError(f"no run at {self.path}: {_no_run(self.path)}")

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def config(self) -> dict[str, Any]:
        """The recipe as resolved."""
        values = self._config or read_yaml(self.path / "config.yaml")
        self._config = values
        return deepcopy(values)

    def forget(self) -> None:
        """Read config.yaml again when it is next asked for."""
        self._config = None

    def recipe(self) -> Recipe:
        """The recipe as resolved, parsed once; keys newer than the run have their defaults.

        Names of code in it are marked as the run's (`segdistill.trust.FromRun`), and so is the
        network's in `model_info`.

        Raises:
            ValueError: config.yaml is not a recipe.
        """
        content = (self.path / "config.yaml").read_bytes()
        return deepcopy(_parsed(str(self.path), content))

    def _json(self, name: str) -> dict[str, Any] | None:
        return read_json(self.path / name)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, without a last line truncated by a kill.

        Warns where a finished run has lost its last rows.

        Raises:
            ValueError: There are rows of steps after the last one.
        """
        path = self.path / "metrics.jsonl"
        rows = read_metrics(path)
        trained = self.model_info().get("step") if self.measured else None
        last = max((row["step"] for row in rows), default=0)
        if trained is not None and last > trained:
            raise ValueError(
                f"{path} has rows up to step {last}; expected {trained} steps, as in model.json. Restore both "
                "files, or retrain the run"
            )
        if trained is not None and last < trained:
            _log.warning(
                "%s has lost its rows after step %d of %d: curves end there, and times are of what is left",
                path,
                last,
                trained,
            )
        return rows

    def evaluation(self) -> dict[str, Any] | None:
        """The metrics of the last weights; None if the run is not finished."""
        return self._json("evaluation.json")

    def model_info(self) -> dict[str, Any]:
        """How to build the network, its classes and palette.

        Raises:
            FileNotFoundError: The run is not finished.
        """
        info = self._json("model.json")
        if info is None:
            self.refuse_lost()
            raise FileNotFoundError(
                f"{self.path} is not finished. Resume it with `segdistill train`"
            )
        return {**info, "name": from_run(info.get("name"), str(self.path))}

    def sets(self) -> dict[str, dict[str, Any]]:
        """The metrics of the last weights on each further set, by its name; errors as for `on_set`."""
        return {name: self.on_set(name) or {} for name in self.set_names()}

    def set_names(self) -> list[str]:
        """Names of the further sets that it was measured on."""
        return sorted(path.stem for path in (self.path / SETS).glob("*.json"))

    def on_set(self, name: str) -> dict[str, Any] | None:
        """The metrics of the last weights on one further set; None if it was not measured.

        Raises:
            ValueError: The file is damaged, or belongs to other weights.
        """
        path = self.path / SETS / f"{name}.json"
        record = read_json(path)
        if record is not None and record.get("weights_sha256") != self.model_info().get("sha256"):
            raise ValueError(
                f"{path} does not belong to {WEIGHTS['model']} (its SHA-256 differs). Remove it, or run "
                f"`segdistill evaluate {self.path} --on {name}`"
            )
        return record

    def transfer(self) -> dict[str, dict[str, Any]]:
        """What `evaluate --transfer` measured of the last weights, by the set's name.

        Raises:
            ValueError: The file is damaged, or belongs to other weights.
        """
        records = self._json(TRANSFER) or {}
        for name, record in records.items():
            if record["of"]["weights"] != self.model_info().get("sha256"):
                raise ValueError(
                    f"{self.path / TRANSFER} does not belong to {WEIGHTS['model']} (its SHA-256 differs on "
                    f"{name}). Remove it, or run `segdistill evaluate {self.path} --transfer true` again"
                )
        return records

    def preparation(self) -> dict[str, Any] | None:
        """Values that the losses recorded before step 1, such as the position readout's R²."""
        return self._json("preparation.json")

    def teacher(self) -> dict[str, Any] | None:
        """The teacher audit: source, load report and measured mIoU."""
        return self._json("teacher.json")

    def environment(self) -> dict[str, Any]:
        """Versions, machine and threads; empty, with a warning, if the file is damaged."""
        try:
            return self._json("environment.json") or {}
        except (Damaged, OSError) as error:
            _log.warning("%s", error)
            return {}

    @property
    def method_name(self) -> str:
        """Name of the method, with its preset unless that is the default."""
        method = self.recipe().chosen_method()
        return method.name if method.preset == "default" else f"{method.name}:{method.preset}"

    @property
    def label(self) -> str | None:
        """Name of the run in tables, as set in its recipe; None: not set."""
        return self.recipe().label

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.recipe().train.seed

    @property
    def finished(self) -> bool:
        """Whether the training reached its last step and left its network."""
        return all((self.path / name).is_file() for name in _RESULT)

    def refuse_lost(self) -> None:
        """Refuse a run that was finished and has lost a file since: it cannot be read, nor can it resume.

        Raises:
            FileNotFoundError: It holds a part of its result, and no checkpoint.
        """
        there = [name for name in _RESULT if (self.path / name).exists()]
        resumes = any((self.path / name).exists() for name in CHECKPOINTS)
        if there and not self.measured and not resumes:
            lost = [name for name in _RESULT if name not in there]
            raise FileNotFoundError(
                f"{self.path} has lost {' and '.join(lost)}. Restore what is missing, or delete the folder to "
                "retrain it"
            )

    @property
    def recorded(self) -> bool:
        """Whether it is the record of a finished run: its metrics and identity, without weights."""
        names = ("evaluation.json", "model.json", "identity.json")
        return not (self.path / WEIGHTS["model"]).exists() and all(
            (self.path / name).is_file() for name in names
        )

    @property
    def measured(self) -> bool:
        """Whether it has the metrics of a finished run, with or without weights."""
        return self.finished or self.recorded

    def weights_path(self, weights: str = "model") -> Path:
        """Path of the last (`model`) or best (`best`) weights."""
        if weights not in WEIGHTS:
            raise ValueError(f"weights is {weights!r}; expected 'model' or 'best'")
        return self.path / WEIGHTS[weights]

    def check_weights(self, weights: str = "model") -> None:
        """Refuse weights that the training did not write; older runs have no digest of `best`.

        Raises:
            ValueError: The file's SHA-256 differs from model.json, or evaluation.json belongs to other
                weights.
        """
        self.refuse_lost()
        path = self.weights_path(weights)
        there = is_there(path)
        recorded = self.model_info().get({"model": "sha256", "best": "best_sha256"}[weights])
        if recorded is None:
            return
        if there and file_sha256(path) != recorded:
            raise ValueError(
                f"{path} is not the file that the training wrote (its SHA-256 differs from model.json). "
                "Restore the file, or retrain the run"
            )
        own = {"weights_sha256": recorded, "classes": self.model_info()["classes"]}
        figures = own | (self.evaluation() or {})
        if weights == "model" and any(figures[key] != value for key, value in own.items()):
            raise ValueError(
                f"{self.path / 'evaluation.json'} does not belong to {path.name} (its SHA-256 or the "
                "classes differ). Restore both files, or retrain the run"
            )


def refuse_nameless(folder: Path) -> None:
    """Refuse a folder without config.yaml that holds weights or a state: another recipe would go on with them.

    Raises:
        FileNotFoundError: It does.
    """
    held = [name for name in (*CHECKPOINTS, *_RESULT) if (folder / name).exists()]
    if held:
        raise FileNotFoundError(
            f"{folder} holds {held[0]} and no config.yaml, so its recipe is not known. Restore config.yaml, or "
            "delete the folder"
        )


def is_in_config(run: RunFolder, values: Mapping[str, Any]) -> bool:
    """Whether a run's config.yaml has these values at its top level; a key newer than the run is empty."""
    old = run.config()
    return all((old.get(key) or None) == (value or None) for key, value in values.items())


def keep_in_config(run: RunFolder, values: Mapping[str, Any]) -> None:
    """Write top-level keys of a finished run's config.yaml that say nothing of what was trained."""
    text = yaml.safe_dump(run.config() | dict(values), sort_keys=False, allow_unicode=True)
    write_atomically(run.path / "config.yaml", text)
    run.forget()


def recorded_miou(path: str | Path | None) -> float | None:
    """The mIoU, 0 to 100, that a run recorded of its last weights; None where it recorded none."""
    figures = None if path is None else RunFolder(path).evaluation()
    return None if figures is None or figures.get("miou") is None else 100 * figures["miou"]


def write_metrics(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSON-lines file."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measured_at(path: str | Path) -> RunFolder | None:
    """The run in a folder if it has its metrics, with or without weights; None otherwise."""
    try:
        run = RunFolder(path)
    except FileNotFoundError:
        return None
    return run if run.measured else None
