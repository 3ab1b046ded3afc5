"""What a start works out is taken from an earlier one only where nothing that it depends on differs."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from segdistill.data.caching import cache_folder
from segdistill.distillation.distiller import Distiller
from segdistill.losses import LOSSES
from segdistill.run.folder import RunFolder
from segdistill.run.training import teacher_audit
from segdistill.run.training.job import make_fabric
from segdistill.run.training.starting import remembered
from segdistill.run.training.starting.remembered import keep, question, recall
from segdistill.run.training.train import open_job, train
from tests.run import small

AS_BEFORE = "as by an earlier start"


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    recipe = small.recipe(
        student={"model": "compact"}, train={"steps": 4, "seed": 9}, out=str(tmp_path / "teacher")
    )
    return train(recipe, progress=False).path / "model.safetensors"


def _recipe(weights: Path, out: Path, **changes: Any) -> Any:
    given = {
        "student": {"model": "compact"},
        "teacher": {"model": "compact", "weights": str(weights), "min_miou": 0.0},
        "method": "idd",
        "out": str(out),
        **changes,
    }
    return small.recipe(**given)


def _trained(weights: Path, out: Path, **changes: Any) -> RunFolder:
    return train(_recipe(weights, out, **changes), progress=False)


def _forbidden(*arguments: object, **named: object) -> None:
    raise AssertionError("worked out again")


def test_a_second_start_takes_over_what_the_first_worked_out(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = _trained(weights, tmp_path / "first")
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(Distiller, "prepare", _forbidden)
        patch.setattr(teacher_audit, "evaluate_with", _forbidden)
        # What only the optimizer reads makes no difference to the start.
        second = _trained(weights, tmp_path / "second", train={"lr": 0.01})
        again = _trained(weights, tmp_path / "again")
    assert caplog.text.count(AS_BEFORE) == 4
    # What the losses warned of at first is told again.
    assert caplog.text.count("position: nothing to teach in y") == 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    fresh = _trained(weights, tmp_path / "fresh")
    for run in (second, again, fresh):
        assert run.preparation() == first.preparation()
        assert run.teacher() == first.teacher()
    for run in (again, fresh):
        ours, theirs = (load_file(one.path / "model.safetensors") for one in (run, first))
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    seconds = [run.model_info()["preparation_seconds"] for run in (first, second, again)]
    assert seconds == [seconds[0]] * 3


CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"train": {"seed": 1}},
    "batch": {"train": {"batch": 3}},
    "crop": {"train": {"crop": [32, 40]}},
    "photometric": {"train": {"photometric": 0.2}},
    "student": {"student": {"model": "compact", "options": {"width": 24}}},
    "another tap": {"terms": {"position": {"on": "logits", "options": {"align": "logits"}}}},
    "the readout's steps": {"terms": {"position": {"options": {"steps": 7}}}},
    "data": {"data": {"name": "synthetic", "options": {"size": [32, 48], "count": 7}}},
}


QUICK = {"crop", "student", "the readout's steps"}


@pytest.mark.parametrize(
    "change",
    [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in CHANGES],
)
def test_a_start_that_differs_is_worked_out(
    change: str, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _trained(weights, tmp_path / "first")
    with caplog.at_level(logging.INFO):
        _trained(weights, tmp_path / "second", **CHANGES[change])
    assert "preparing position on the frozen teacher" in caplog.text


def test_other_weights_of_the_teacher_are_measured_and_read_again(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = _trained(weights, tmp_path / "first")
    own = small.recipe(
        student={"model": "compact"}, train={"steps": 4, "seed": 8}, out=str(tmp_path / "other")
    )
    other = train(own, progress=False).path / "model.safetensors"
    with caplog.at_level(logging.INFO):
        second = _trained(other, tmp_path / "second")
    assert AS_BEFORE not in caplog.text
    assert second.preparation() != first.preparation()


@pytest.mark.parametrize("damage", [b"", b"no tensors", None])
def test_a_damaged_memory_is_no_memory(
    damage: bytes | None, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = _trained(weights, tmp_path / "first")
    kept = sorted((tmp_path / "cache" / "segdistill" / "starts").iterdir())
    assert len(kept) == 2
    for path in kept:
        # The content of another question stands for whatever does not fit.
        path.write_bytes(
            (kept[0].read_bytes() if path == kept[1] else b"x") if damage is None else damage
        )
    with caplog.at_level(logging.INFO):
        second = _trained(weights, tmp_path / "second")
    assert AS_BEFORE not in caplog.text
    assert second.preparation() == first.preparation()


class Own(nn.Module):
    """Somebody's own network, of whose code no digest tells all."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, 11, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.classifier(images)
        return out


def test_nothing_is_asked_where_code_of_somebody_takes_part(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(change: Any = None) -> str | None:
        job = open_job(_recipe(weights, tmp_path / "run"), tmp_path / "run")
        _ = job.identity  # kept from here on: what follows is told by code alone
        if change is not None:
            change(job)
        fabric = make_fabric(job.recipe)
        return question(job, fabric, "this", ("student", "teacher"), ("train", "val"))

    def hooked(job: Any) -> None:
        next(job.teacher.children()).register_forward_hook(lambda *_: None)

    def replaced(job: Any) -> None:
        job.student.forward = lambda images: images

    def patched(job: Any) -> None:
        next(job.teacher.children()).activation = lambda images: images

    def own(job: Any) -> None:
        job.student = Own()

    def own_data(job: Any) -> None:
        job.train_set = [job.train_set[0]]

    first = asked()
    assert first is not None and first == asked()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark)
    assert asked() not in (None, first)
    monkeypatch.undo()
    monkeypatch.setattr(remembered, "_BEGUN", 0.0)  # as if every file had been edited since
    assert asked() is None
    monkeypatch.undo()
    for change in (hooked, replaced, patched, own, own_data):
        assert asked(change) is None


def test_what_is_kept_is_recalled_to_the_bit_and_nothing_else() -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(7)}
    keep("0" * 64, tensors, {"seconds": 0.1})
    found = recall("0" * 64)
    assert found is not None
    assert all(torch.equal(found[0][name], value) for name, value in tensors.items())
    assert found[1] == {"seconds": 0.1}
    keep(None, tensors, {})
    assert recall("1" * 64) is recall(None) is None


def test_what_no_start_has_used_for_two_months_is_forgotten() -> None:
    for name in "012":
        keep(name * 64, {"a": torch.ones(1)}, {})
    then = time.time() - 61 * 24 * 3600
    for name in "012":
        os.utime(cache_folder() / "starts" / f"{name * 64}.safetensors", (then, then))
    assert recall("1" * 64) is not None  # used again
    keep("3" * 64, {"a": torch.ones(1)}, {})
    assert [recall(name * 64) is not None for name in "0123"] == [False, True, False, True]


def test_what_is_kept_in_somebody_elses_cache_is_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    keep("0" * 64, {"a": torch.ones(1)}, {})

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    assert recall("0" * 64) is not None


def test_every_loss_that_is_prepared_is_tested_here() -> None:
    """A loss whose preparation lies outside its state would not be taken over whole."""
    prepared = {name for name, loss in LOSSES.items() if "prepare" in vars(loss)}
    assert prepared == {"position", "hint"}
