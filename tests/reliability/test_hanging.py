"""What hangs is named, and a job that does nothing any more ends; signals are heard everywhere."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.data import Dataset

from segdistill.activity import doing, get_on
from segdistill.cli import main
from segdistill.data.loader import training_loader
from segdistill.data.transforms import Augment
from segdistill.run.evaluation import evaluate
from segdistill.run.training.watching import watching
from tests.run import processes, small

FAST: dict[str, Any] = {"every": 0.02, "named_after": 0.1}


def _until(found: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.02)
    return False


def test_what_hangs_is_named_and_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []
    with (
        watching(tmp_path, limit=0.4, end=ended.append, **FAST),
        doing("measuring the teacher", "image 3 of 7"),
    ):
        assert _until(lambda: ended)
    named = f"process {os.getpid()} (rank 0) has made no progress since"
    assert named in caplog.text
    assert "while measuring the teacher (image 3 of 7)" in caplog.text
    assert ended[0].startswith(named)
    assert "longer than train.hang_after (0.4 s), so the job ends" in ended[0]
    assert not list(tmp_path.iterdir())


def test_long_work_that_gets_on_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    with watching(tmp_path, limit=0.2, end=ended.append, **FAST), doing("evaluating"):
        for image in range(30):
            get_on(f"image {image}")
            time.sleep(0.03)
    assert not ended and "has made no progress" not in caplog.text


def test_an_activity_that_waited_for_long_work_inside_it_has_not_hung(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    with watching(tmp_path, limit=0.3, end=ended.append, **FAST), doing("starting"):
        with doing("training"):
            for step in range(20):
                get_on(f"step {step}")
                time.sleep(0.03)
        time.sleep(0.08)  # several looks of the watchdog, shorter than anything it reports
    assert not ended and "has made no progress" not in caplog.text


def test_no_limit_never_ends_a_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []
    with watching(tmp_path, limit=0, end=ended.append, **FAST), doing("compiling"):
        assert _until(lambda: "has made no progress" in caplog.text)
        time.sleep(0.2)
    assert not ended


def test_a_rank_that_does_not_answer_is_named_by_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    beat = {"process": 4711, "doing": "training (step 9)", "still": 0.0, "worker": ""}
    stop = threading.Event()

    def gets_on() -> None:
        while not stop.wait(0.02):
            get_on("step 9")

    with watching(tmp_path, world=2, limit=0.4, end=ended.append, **FAST), doing("training"):
        (tmp_path / ".beat-1.json").write_text(json.dumps({**beat, "noted": time.time() + 0.05}))
        thread = threading.Thread(target=gets_on)
        thread.start()
        try:
            assert _until(lambda: ended)
        finally:
            stop.set()
            thread.join()
    assert "process 4711 (rank 1) has made no progress since" in caplog.text
    assert "does not respond, while training (step 9)" in caplog.text
    assert "rank 0" not in caplog.text


class Stuck(Dataset[Any]):
    """Its sample 3 is never read."""

    classes = ("a", "b")

    def __init__(self) -> None:
        self.names = [f"photo-{index}.jpg" for index in range(6)]

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 3:
            time.sleep(60)
        return {"image": torch.zeros(3, 16, 16), "label": torch.zeros(16, 16, dtype=torch.int64)}


def test_the_worker_and_sample_that_hang_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    augment = Augment((16, 16), (1.0, 1.0), 0.0, 0.0)
    loader = iter(
        training_loader(
            Stuck(), augment, batch=6, seed=0, start_step=0, steps=1, workers=1, num_classes=2
        )
    )
    waiting = threading.Thread(target=lambda: next(loader), daemon=True)
    with watching(tmp_path, limit=0, **FAST), doing("training", "waiting for the images of step 1"):
        waiting.start()
        assert _until(lambda: "loader worker 0 has been reading photo-3.jpg for" in caplog.text, 20)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(small.values(out=str(tmp_path / "run"), train={"steps": 3})))
    return path


def _slow_evaluation(arguments: list[str]) -> None:
    real = evaluate.segment

    def slow(*given: Any, **options: Any) -> Any:
        print("evaluating", flush=True)
        time.sleep(0.3)
        return real(*given, **options)

    evaluate.segment = slow
    main(arguments)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_between_two_images_of_an_evaluation(
    number: signal.Signals, recipe: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = processes.start(log, _slow_evaluation, ["train", str(recipe)])
    assert _until(lambda: log.exists() and "evaluating\n" in log.read_text(), 60)
    began = time.monotonic()
    os.kill(process.pid or 0, number)
    process.join(60)
    said = log.read_text()
    assert process.exitcode == 128 + number, said
    assert time.monotonic() - began < 5
    assert "Traceback" not in said
    assert "stopped after step 3. Repeat the command to resume" in said
    # The last step is on disk: nothing is trained again.
    again = tmp_path / "again"
    processes.run(again, main, ["train", str(recipe)])
    assert "resumes after step 3 of 3" in again.read_text()


def test_sigterm_outside_a_training_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recipe: Path
) -> None:
    def waits(*_: Any) -> None:
        with doing("reading the masks", "0003.png"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    monkeypatch.setattr("segdistill.run.auditing.check.check", waits)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        main(["check", str(recipe)])
    assert caught.value.code == 143
    assert capsys.readouterr().err == (
        "segdistill: stopped by SIGTERM while reading the masks (0003.png)\n"
    )
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    logger = logging.getLogger("segdistill")
    before = logger.propagate
    logger.propagate = True
    yield
    logger.propagate = before
