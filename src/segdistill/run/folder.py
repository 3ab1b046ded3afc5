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

from segdistill.config import Recipe, map_code_names, read_yaml
from segdistill.run.recipe import parse_recipe
from segdistill.trust import FromRun, from_run

_log = logging.getLogger(__name__)
SETS = "evaluations"
"""Folder of a run: its metrics on further sets, one file per set."""
TRANSFER = "transfer.json"
WEIGHTS = {"model": "model.safetensors", "best": "best.safetensors"}


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
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _not_written(path, len(data), error) from error


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


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a run's JSON file; None if the file does not exist.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Evaluate or retrain that run") from None


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
            cause = "there is no such folder" if not self.path.is_dir() else "it has no config.yaml"
            raise FileNotFoundError(
                f"no run at {self.path}: {cause}. Name a folder written by `segdistill train`"
            )

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
        """The rows of metrics.jsonl, without a last line truncated by a kill."""
        return read_metrics(self.path / "metrics.jsonl")

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
            raise FileNotFoundError(
                f"{self.path} is not finished. Resume it with `segdistill train`"
            )
        return {**info, "name": from_run(info.get("name"), str(self.path))}

    def sets(self) -> dict[str, dict[str, Any]]:
        """The metrics of the last weights on each further set, by its name.

        Raises:
            ValueError: A file is damaged, or belongs to other weights.
        """
        found = {}
        for path in sorted((self.path / SETS).glob("*.json")):
            record = read_json(path) or {}
            if record.get("weights_sha256") != self.model_info().get("sha256"):
                raise ValueError(
                    f"{path} does not belong to {WEIGHTS['model']} (its SHA-256 differs). Remove it, or run "
                    f"`segdistill evaluate {self.path} --on {path.stem}`"
                )
            found[path.stem] = record
        return found

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
        except ValueError as error:
            _log.warning("%s", str(error).split(". ")[0])
            return {}

    @property
    def method_name(self) -> str:
        """Name of the method, with its preset unless that is the default."""
        method = self.config().get("method", "supervised")
        if isinstance(method, str):
            return method
        preset = method.get("preset", "default")
        return str(method["name"]) if preset == "default" else f"{method['name']}:{preset}"

    @property
    def label(self) -> str | None:
        """Name of the run in tables, as set in its recipe; None: not set."""
        label: str | None = self.config().get("label")
        return label

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config()["train"]["seed"])

    @property
    def finished(self) -> bool:
        """Whether the training reached its last step and left its network."""
        return all(
            (self.path / name).is_file() for name in ("model.safetensors", "evaluation.json")
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
        path = self.weights_path(weights)
        recorded = self.model_info().get({"model": "sha256", "best": "best_sha256"}[weights])
        if recorded is None:
            return
        if path.is_file() and file_sha256(path) != recorded:
            raise ValueError(
                f"{path} is not the file that the training wrote (its SHA-256 differs from model.json). "
                "Restore the file, or retrain the run"
            )
        figures = self.evaluation() or {}
        if weights == "model" and figures.get("weights_sha256", recorded) != recorded:
            raise ValueError(
                f"{self.path / 'evaluation.json'} does not belong to {path.name} (its SHA-256 differs). "
                "Restore both files, or retrain the run"
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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file, without damaged ones; warns if others than the last are damaged.

    A kill damages at most the last line.
    """
    if not path.is_file():
        return []
    rows, damaged = [], []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None:
            damaged.append(number)
        else:
            rows.append(row)
    if damaged and damaged != [len(lines)]:
        _log.warning("%s: skipped damaged line %s", path, ", ".join(map(str, damaged[:5])))
    return rows


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def write_metrics(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSON-lines file."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
