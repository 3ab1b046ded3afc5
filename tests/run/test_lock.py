"""One process at a time writes to a folder."""

import json
import os
import signal
import threading
import time
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from segdistill.run import lock
from segdistill.run.lock import FolderInUse, writing
from tests.run import processes


@pytest.fixture(params=["system", "file"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the operating system's locks, and with the lock file used instead."""
    if request.param == "file":
        monkeypatch.setattr(lock, "fcntl", None)
    return str(request.param)


def hold(folder: Path, forking: bool) -> None:
    """Hold the lock of a folder for a minute, as the parent of another process if `forking`."""
    os.setpgid(0, 0)
    with writing(folder):
        if forking and os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        print("held")
        time.sleep(60)


def hold_elsewhere(folder: Path, forking: bool = False) -> ForkProcess:
    """A process with the lock, which takes it as this process would."""
    log = folder.with_suffix(".log")
    process = processes.start(log, hold, folder, forking)
    while "held" not in (log.read_text() if log.exists() else ""):
        assert process.is_alive(), log.read_text()
        time.sleep(0.01)
    return process


def test_the_holder_is_named_and_the_lock_ends_with_it(kind: str, tmp_path: Path) -> None:
    other = hold_elsewhere(tmp_path)
    try:
        with (
            pytest.raises(
                FolderInUse, match=rf"being written to by process {other.pid} on \S+ for 0 min"
            ),
            writing(tmp_path),
        ):
            pass
        with writing(tmp_path, "report"):
            pass  # something else in the same folder
    finally:
        other.kill()
        other.join()
    with writing(tmp_path):
        assert json.loads((tmp_path / ".lock.json").read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_process_may_lock_a_folder_twice_only_in_one_thread(kind: str, tmp_path: Path) -> None:
    refused: list[str] = []

    def attempt() -> None:
        try:
            with writing(tmp_path):
                pass
        except FolderInUse as error:
            refused.append(str(error))

    with writing(tmp_path):
        with writing(tmp_path):
            pass
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(refused) == 1
    attempt()
    assert len(refused) == 1


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_training(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path, forking=True)
    assert process.pid is not None
    try:
        process.kill()
        process.join()
        with writing(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the worker, which is there until now


@pytest.mark.parametrize(("machine", "age", "stale"), [("other", 60, False), ("other", 1e6, True)])
def test_a_lock_file_of_another_machine_becomes_stale_with_age(
    machine: str, age: float, stale: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    holder = {"machine": machine, "process": 1, "since": time.time() - age, "command": "train"}
    (tmp_path / ".lock.json").write_text(json.dumps(holder))
    if stale:
        with writing(tmp_path):
            pass
    else:
        with pytest.raises(FolderInUse, match="process 1 on other for 1 min"), writing(tmp_path):
            pass


def test_a_file_system_without_locks_falls_back_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", refuse)
    with writing(tmp_path):
        assert (tmp_path / ".lock.json").exists()
    assert not (tmp_path / ".lock.json").exists()


def test_only_the_first_process_of_a_training_takes_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = hold_elsewhere(tmp_path)
    monkeypatch.setenv("RANK", "1")
    try:
        with writing(tmp_path):
            pass
    finally:
        other.kill()
        other.join()


def test_a_lock_file_that_is_a_pipe_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock.json")
    with writing(tmp_path):
        assert json.loads((tmp_path / ".lock.json").read_text())["process"] == os.getpid()


@pytest.mark.parametrize("content", ["", "[1]", '{"machine": "x", "process": 1e99, "since": NaN}'])
def test_a_lock_file_that_says_nothing_holds_for_a_minute(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer may only just have created it."""
    monkeypatch.setattr(lock, "fcntl", None)
    file = tmp_path / ".lock.json"
    file.write_text(content)
    with pytest.raises(FolderInUse, match="written to by another process"), writing(tmp_path):
        pass
    os.utime(file, (time.time() - 70,) * 2)
    with writing(tmp_path):
        pass
