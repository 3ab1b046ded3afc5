"""Trainings that are broken at each of their file operations, or whose files are damaged, and go on."""

import json
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from safetensors.torch import load_file

from segdistill.cli import main
from segdistill.run.folder import RunFolder
from tests.reliability import breaking
from tests.run import processes, small

LIMIT = 60
"""Seconds that a command may take."""
TRAININGS = ("supervised", "idd", "skd:paper", "accumulate, average and workers")
ENDS = {
    "kill": {-signal.SIGKILL},
    "half a file": {-signal.SIGKILL},
    "full disk": {2},
    "SIGTERM": {128 + signal.SIGTERM},
    "SIGINT": {128 + signal.SIGINT},
}
DAMAGES = ("gone", "empty", "half", "one bit", "other bytes")
_TIMES = ("seconds", "pace", "memory", "time")


@dataclass
class Trial:
    """What was tried, and what was wrong with the end; empty for a survival."""

    training: str
    kind: str
    what: str
    fault: str


class Training:
    """A training, its uninterrupted end, and the file operations on the way there.

    Args:
        name: One of `TRAININGS`.
        folder: Everything is written here.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe = small.write(folder / "recipe.yaml", **_changes(name, folder))
        whole, operations = folder / "whole", folder / "operations"
        code, said = self._run(whole, None, -1, operations)
        assert code == 0, said
        self.whole = _state(whole)
        self.operations = operations.read_text().splitlines()

    def broken(self, kind: str, at: int) -> Trial:
        """Break the training at an operation, repeat the command, and compare with the whole run."""
        out = self.folder / f"{kind}-{at}".replace(" ", "-")
        first, said = self._run(out, kind, at)
        fault = ""
        if first == 0:
            # What is left out does no harm, or the signal came after the last chance to hear it.
            fault = "" if kind not in ("kill", "half a file") else "was not killed"
        elif first not in ENDS[kind]:
            fault = f"ended with code {first}: {_last(said)}"
        elif kind not in ("kill", "half a file"):
            fault = _more_than_a_line(said)
        if not fault:
            fault = self._goes_on(out)
        return Trial(self.name, kind, self.operations[at], fault)

    def _goes_on(self, out: Path) -> str:
        """What is wrong when the command is repeated on what was left behind."""
        code, said = self._run(out)
        if code:
            return f"repeated, it ended with code {code}: {_last(said)}"
        fault = _difference(self.whole, _state(out)) or _leftovers(out)
        rmtree(out)
        return fault

    def damaged(self, file: str, damage: str) -> Trial:
        """Damage a file of an interrupted run; the repeated command ends as the whole one, or refuses."""
        out = self.folder / f"{file}-{damage}".replace(" ", "-").replace("/", "-")
        self.interrupted(out)
        hurt(out / file, damage)
        code, said = self._run(out)
        fault = ""
        if code == 0:
            fault = _difference(self.whole, _state(out), rows=file != "metrics.jsonl")
        elif code != 2:
            fault = f"ended with code {code}: {_last(said)}"
        else:
            fault = _more_than_a_line(said)
        return Trial(self.name, f"damaged: {damage}", file, fault)

    def interrupted(self, out: Path) -> None:
        """Leave a run behind that was killed after its second checkpoint."""
        saves = [n for n, line in enumerate(self.operations) if line == "rename /.resume.ckpt.new"]
        code, said = self._run(out, "kill", saves[1] + 1)
        assert code == -signal.SIGKILL, said

    def _run(
        self, out: Path, kind: str | None = None, at: int = -1, log: Path | None = None
    ) -> tuple[int, str]:
        arguments = ["train", str(self.recipe), "--out", str(out)]
        log = log or Path("/dev/null")
        return ended(self.folder / "said", out, kind, at, log, arguments)


def ended(
    said: Path, folder: Path, kind: str | None, at: int, log: Path, arguments: list[str]
) -> tuple[int, str]:
    """Run a command in a process of its own; its exit code and what it printed."""
    said.unlink(missing_ok=True)
    if kind is None and log == Path("/dev/null"):
        process = processes.start(said, main, arguments)
    else:
        process = processes.start(said, breaking.command, folder, kind, at, log, arguments)
    process.join(LIMIT)
    hangs = process.is_alive()
    process.kill()
    process.join()
    text = said.read_text() if said.exists() else ""
    return (124, "it hangs") if hangs else (process.exitcode or 0, text)


def _changes(name: str, folder: Path) -> dict[str, Any]:
    steps: dict[str, Any] = {"steps": 4, "log_every": 1, "save_every": 1}
    if name == "supervised":
        return {"train": steps}
    if name == "accumulate, average and workers":
        return {"train": {**steps, "batch": 4, "accumulate": 2, "average": 0.9, "workers": 1}}
    teacher = folder / "teacher"
    if name == "idd":
        small.teacher(teacher)
        terms = {"position": {"options": {"steps": 2}}}
        return {**small.distilled(teacher, terms=terms), "train": steps}
    small.teacher(teacher, **small.FINE)
    return {**small.released(teacher, method="skd"), "train": steps}


@dataclass
class State:
    weights: dict[str, torch.Tensor]
    rows: list[dict[str, Any]]
    evaluation: dict[str, Any] | None


def _state(folder: Path) -> State:
    """What two runs of one recipe must have in common, to the bit."""
    rows = [
        {key: value for key, value in row.items() if not any(part in key for part in _TIMES)}
        for row in RunFolder(folder).metrics()
    ]
    return State(load_file(folder / "model.safetensors"), rows, RunFolder(folder).evaluation())


def _difference(whole: State, other: State, rows: bool = True) -> str:
    if whole.weights.keys() != other.weights.keys():
        return "other tensors"
    for name, tensor in whole.weights.items():
        if not torch.equal(tensor, other.weights[name]):
            return f"{name} differs"
    if rows and json.dumps(whole.rows) != json.dumps(other.rows):
        return "rows of metrics.jsonl differ"
    ours, theirs = whole.evaluation or {}, other.evaluation or {}
    return "" if ours.get("confusion") == theirs.get("confusion") else "evaluation differs"


def _leftovers(folder: Path) -> str:
    """Files that a finished run should not hold."""
    odd = [
        path.name
        for path in folder.iterdir()
        if path.name.endswith((".tmp", ".new", ".ckpt")) or path.name.startswith(".writable")
    ]
    return f"leaves {', '.join(odd)} behind" if odd else ""


def _last(said: str) -> str:
    return (said.strip().splitlines() or ["nothing was said"])[-1][:200]


def _more_than_a_line(said: str) -> str:
    """What is wrong with an answer that should be one line of the program."""
    lines = [line for line in said.splitlines() if line.startswith("segdistill: ")]
    if "Traceback" in said:
        return f"shows a traceback: {_last(said)}"
    return "" if len(lines) == 1 else f"said {len(lines)} lines, not one: {_last(said)}"


def hurt(path: Path, damage: str) -> None:
    """Damage a file."""
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "half":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "one bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(b"\xff\x00{[" * 32)


def files(folder: Path) -> list[str]:
    """The files of a run by name, except the lock, which holds nothing."""
    found = (path for path in folder.iterdir() if path.is_file() and "lock" not in path.name)
    return sorted(path.name for path in found)


def every_break(training: Training) -> Iterator[Callable[[], Trial]]:
    for kind in breaking.KINDS:
        for at, operation in enumerate(training.operations):
            if kind != "half a file" or operation.startswith("sync /"):
                yield partial(training.broken, kind, at)


def every_damage(training: Training) -> Iterator[Callable[[], Trial]]:
    example = training.folder / "example"
    training.interrupted(example)
    for file in files(example):
        for damage in DAMAGES:
            yield partial(training.damaged, file, damage)


def sampled(tries: Iterable[Callable[[], Trial]], every: int, first: int = 0) -> Iterator[Trial]:
    """Every n-th of these tries, done."""
    for one in islice(tries, first, None, every):
        yield one()
