"""A watchdog for trainings: reports processes that hang, and ends a job without progress."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segdistill.activity import current_activity
from segdistill.data.loader import busy_workers

_log = logging.getLogger(__name__)
EXIT_CODE = 124
"""Exit code of a job that was ended because it hung, as in timeout(1)."""
NAMED_AFTER = 45.0
"""Seconds without progress after which a process is reported as hanging."""


@contextmanager
def watching(
    folder: Path,
    rank: int = 0,
    world: int = 1,
    limit: float = 600.0,
    *,
    every: float = 5.0,
    named_after: float = NAMED_AFTER,
    end: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Watch the processes of a training, from a thread in each of them.

    Every process records its activity and last progress in `.beat-RANK.json`. A process without progress
    for `named_after` seconds is reported in the log, with its activity and, if it waits for data, the
    loader worker and sample. After `limit` seconds the process ends itself, and with it the job.

    Args:
        folder: The run's folder.
        rank: Number of this process.
        world: Number of processes.
        limit: Seconds without progress after which the job ends; 0: never.
        every: Seconds between two checks.
        named_after: Seconds without progress after which a process is reported.
        end: Called with a message to end the process; None: print it and exit with `EXIT_CODE`.
    """
    stop = threading.Event()
    watch = _Watch(folder, rank, world, limit, named_after, end or _end)
    thread = threading.Thread(target=watch.run, args=(stop, every), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=every)
        watch.file(rank).unlink(missing_ok=True)


def _end(line: str) -> None:
    sys.stderr.write(f"segdistill: {line}\n")
    sys.stderr.flush()
    os._exit(EXIT_CODE)


class _Watch:
    def __init__(
        self,
        folder: Path,
        rank: int,
        world: int,
        limit: float,
        named_after: float,
        end: Callable[[str], None],
    ) -> None:
        self.folder, self.rank, self.world = folder, rank, world
        self.limit, self.named_after, self.end = limit, named_after, end
        self.named: dict[int, Any] = {}
        self.began = time.time()

    def file(self, rank: int) -> Path:
        return self.folder / f".beat-{rank}.json"

    def run(self, stop: threading.Event, every: float) -> None:
        while not stop.wait(every):
            with suppress(OSError):
                self.look()

    def look(self) -> None:
        """Record the activity of this process, and check all processes."""
        own = self._note()
        for rank in range(self.world):
            beat = own if rank == self.rank else self._read(rank)
            if beat is not None:
                self._judge(rank, beat)

    def _note(self) -> dict[str, Any]:
        activity = current_activity()
        still = 0.0 if activity is None else time.monotonic() - activity.moved
        beat = {
            "process": os.getpid(),
            "doing": str(activity or ""),
            "still": still,
            "worker": _slowest_worker() if still > self.named_after / 2 else "",
            "noted": time.time(),
        }
        temporary = self.file(self.rank).with_suffix(".tmp")
        temporary.write_text(json.dumps(beat))
        temporary.replace(self.file(self.rank))
        return beat

    def _read(self, rank: int) -> dict[str, Any] | None:
        try:
            beat: dict[str, Any] = json.loads(self.file(rank).read_text())
        except (OSError, ValueError):
            return None
        # Files of an earlier job are ignored.
        return beat if beat["noted"] >= self.began else None

    def _judge(self, rank: int, beat: dict[str, Any]) -> None:
        silent = time.time() - beat["noted"]
        still = beat["still"] + silent
        if still < self.named_after:
            self.named.pop(rank, None)
            return
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - still))
        problem = f"process {beat['process']} (rank {rank}) has made no progress since {since}"
        if silent > self.named_after:
            problem += " and does not respond"
        problem += f", while {beat['doing'] or 'starting'}"
        if beat["worker"]:
            problem += f"; {beat['worker']}"
        # Report each hang once, not whenever only a worker's seconds have changed.
        state = beat["doing"], beat["worker"].rpartition(" for ")[0]
        if self.named.get(rank) != state:
            self.named[rank] = state
            _log.error("%s", problem)
        # A hanging process ends itself; if it does not respond, the others end it.
        own = rank == self.rank or silent > self.named_after
        if self.limit and still > self.limit and own:
            self.end(
                f"{problem}. That is longer than train.hang_after ({self.limit:g} s), so the job ends. Repeat the "
                "command to resume"
            )


def _slowest_worker() -> str:
    """The loader worker that has been reading one sample for longest."""
    busy = busy_workers()
    if not busy:
        return ""
    worker, name, seconds = max(busy, key=lambda entry: entry[2])
    return f"loader worker {worker} has been reading {name} for {seconds:.0f} s"
