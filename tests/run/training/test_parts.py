"""A batch in parts, or over several processes, is the batch: exactly, but for statistics of a batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from segdistill.config import TrainConfig
from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.run.training.records import show_parts
from tests.distillation.networks import Tiny
from tests.run.parts import EXACT, process, step

NEAR = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    return {labels: step(_fabric(), folder, 1, labels) for labels in ("data", "teacher", "both")}


def _fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="64-true")


def _assert_equal(result: dict[str, Any], whole: dict[str, Any]) -> None:
    assert result["total"] == pytest.approx(whole["total"], rel=1e-9)
    assert result["terms"].keys() == whole["terms"].keys() == EXACT.keys()
    for name, term in whole["terms"].items():
        assert result["terms"][name]["value"] == pytest.approx(term["value"], rel=1e-9), name
        assert result["terms"][name]["share"] == pytest.approx(term["share"], rel=1e-9), name
        assert term["value"] > 0
        assert term["share"] > 0
    for name, gradient in whole["gradient"].items():
        torch.testing.assert_close(result["gradient"][name], gradient, **NEAR, msg=name)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("labels", ["data", "teacher", "both"])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_give_loss_and_gradient_of_the_whole_batch(
    parts: int, labels: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    _assert_equal(step(_fabric(), tmp_path, parts, labels), whole[labels])


@pytest.mark.parametrize(
    ("processes", "parts"), [(2, (1, 2)), pytest.param(4, (1, 2), marks=pytest.mark.slow)]
)
def test_processes_give_loss_and_gradient_of_the_whole_batch(
    processes: int, parts: tuple[int, ...], whole: dict[str, Any], tmp_path: Path
) -> None:
    # Forked: importing everything again would take most of the test.
    torch.multiprocessing.start_processes(
        process,
        (processes, 29530 + processes, tmp_path, parts),
        nprocs=processes,
        start_method="fork",
    )
    for number in parts:
        for labels in ("data", "teacher", "both"):
            _assert_equal(torch.load(tmp_path / f"{number}-{labels}.pt"), whole[labels])


@pytest.mark.parametrize(
    ("method", "accumulate", "processes", "said"),
    [
        (
            "dist",
            2,
            2,
            "in 4 parts of 2 images; statistics of a part and not of the batch: dist (columns)",
        ),
        ("dist", 1, 2, "in 2 parts of 4 images"),
        ("dist", 1, 1, ""),
        ("kd", 2, 2, ""),
    ],
)
def test_terms_that_depend_on_how_a_batch_is_split_are_named(
    method: str, accumulate: int, processes: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    distiller = Distiller(Tiny(6), build_method(method, 3), Tiny(9))
    with caplog.at_level("INFO", logger="segdistill"):
        show_parts(distiller, TrainConfig(batch=8, accumulate=accumulate), processes)
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
