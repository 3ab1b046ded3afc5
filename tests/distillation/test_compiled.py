"""Compiled networks are read, aligned and saved as their own code; the backends compile no machine code."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from torch import nn
from torch.nn import functional as F

from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.distillation.taps import Taps
from segdistill.geometry import Cells, tap_cells
from segdistill.models import build_model, wrap
from segdistill.run.networks import weights_bytes
from tests.distillation.networks import Tiny, batch
from tests.distillation.test_taps import Small
from tests.run.training.test_distill import Plain, _distill

BACKEND: Any = "aot_eager"


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    torch.compiler.reset()


def _distiller(compiled: bool) -> Distiller:
    torch.manual_seed(0)
    student, teacher = Tiny(6), Tiny(9)
    if compiled:
        student, teacher = (torch.compile(n, backend=BACKEND) for n in (student, teacher))
    distiller = Distiller(student, build_method("idd", 3), teacher)
    distiller.dry_pass(batch()[0])
    torch.manual_seed(1)
    distiller.prepare([batch()[0]] * 4)
    return distiller


@pytest.mark.slow
def test_a_compiled_pair_gives_the_values_gradients_and_shares_of_the_plain_one() -> None:
    found = []
    for compiled in (False, True):
        distiller = _distiller(compiled)
        values = distiller(*batch())
        shares = distiller.gradient_shares()
        distiller.method.total(values).backward()
        student: Any = getattr(distiller.student, "_orig_mod", distiller.student)
        numbers = {name: float(value.detach()) for name, value in values.items()}
        found.append((numbers, shares, student.stem.weight.grad))
    (plain, shares, gradient), (compiled_values, compiled_shares, compiled_gradient) = found
    assert compiled_values == pytest.approx(plain, rel=1e-4)
    assert shares
    # One graph has one backward pass: what does not reach the anchor is a zero there, not absent.
    assert compiled_shares.pop("cross_entropy_aux") == 0
    assert compiled_shares == pytest.approx(shares, rel=1e-3)
    torch.testing.assert_close(compiled_gradient, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_tap_before_an_inplace_operation_keeps_what_it_read(backend: str) -> None:
    network = Small(inplace=True)
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    taps = Taps(compiled, {"features": "body"})
    for images in torch.randn(2, 1, 3, 5, 7):  # the second pass runs the compiled code
        compiled(images)
        expected = F.conv2d(images, network.body.weight, network.body.bias)
        torch.testing.assert_close(taps.collect()["features"], expected)
        with pytest.raises(ValueError, match="was not reached"):
            taps.collect()


def test_code_that_was_compiled_before_the_taps_were_opened_is_refused() -> None:
    network = Small()
    compiled = torch.compile(network, backend="eager")
    images = torch.zeros(1, 3, 2, 2)
    compiled(images)
    taps = Taps(compiled, {"features": "body"})
    with pytest.raises(ValueError, match=r"not reached.*torch\.compiler\.reset\(\)"):
        compiled(images)
        taps.collect()
    torch.compiler.reset()
    compiled(images)
    assert taps.collect()["features"].shape == (1, 4, 2, 2)


def test_compiled_modules_are_distilled_from_python(tmp_path: Path) -> None:
    student, teacher = (torch.compile(Plain(w), backend="eager") for w in (4, 6))
    run = _distill(tmp_path, student, teacher=teacher, steps=2)
    fresh = Plain(4)
    fresh.load_state_dict(load_file(run.weights_path()), strict=True)
    again = torch.compile(Plain(4), backend="eager")
    assert _distill(tmp_path, again, teacher=teacher, steps=2, same_start=False).finished
    image = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(again(image), fresh(image))


def test_what_ships_has_the_names_of_the_users_own_class() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    model = wrap(torch.compile(plain, backend="eager"), 3)
    assert load(weights_bytes(model)).keys() == plain.state_dict().keys()
    distiller = Distiller(model, build_method("supervised", 3))
    distiller.dry_pass(batch()[0])
    assert torch.isfinite(distiller.method.total(distiller(*batch())))


def test_a_compiled_network_says_where_its_cells_lie() -> None:
    network = build_model("espnet_c", 3, depth=[1, 1])
    compiled = torch.compile(network, backend=BACKEND)
    here, there = (tap_cells(n, "features", (8, 8), (64, 64)) for n in (network, compiled))
    assert here == there == Cells.at((8, 8), (64, 64), 8)
