"""`precision: auto` becomes what the device is fast in, and says so."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segdistill.run import opening
from segdistill.run.compare import compare
from segdistill.run.opening import with_precision
from segdistill.run.training.train import train
from tests.run import small


def _processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None) -> None:
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse\n")
    monkeypatch.setattr(opening, "_CPU_FACTS", file)


@pytest.mark.parametrize(
    ("flags", "found"),
    [("amx_tile amx_bf16", "bf16"), ("avx512_bf16", "32"), ("", "32"), (None, "32")],
)
def test_auto_is_bf16_where_the_processor_has_matrix_units(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flags: str | None,
    found: str,
) -> None:
    _processor(tmp_path, monkeypatch, flags)
    with caplog.at_level("INFO"):
        recipe = with_precision(small.recipe(train={"precision": "auto"}))
    assert recipe.train.precision == found
    some = "" if found == "bf16" else "no "
    assert (
        f"train.precision is auto: {found}, as this processor has {some}matrix units" in caplog.text
    )


@pytest.mark.parametrize(("native", "found"), [(True, "bf16"), (False, "32")])
def test_auto_on_a_gpu_asks_for_native_support(
    monkeypatch: pytest.MonkeyPatch, native: bool, found: str
) -> None:
    monkeypatch.setattr(opening, "resolve_device", lambda _: "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert with_precision(small.recipe(train={"precision": "auto"})).train.precision == found


def test_a_named_precision_stays() -> None:
    recipe = small.recipe(train={"precision": "bf16"})
    assert with_precision(recipe) is recipe


def test_the_run_names_its_precision_and_is_not_resumed_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _processor(tmp_path, monkeypatch, "")
    recipe = small.recipe(train={"precision": "auto", "steps": 2}, out=str(tmp_path / "run"))
    run = train(recipe, progress=False)
    assert run.recipe().train.precision == "32"
    assert train(recipe, progress=False).path == run.path
    _processor(tmp_path, monkeypatch, "amx_bf16")
    with pytest.raises(ValueError, match=r"another recipe \(train.precision differ\)"):
        train(recipe, progress=False)


def test_the_rows_of_a_comparison_share_what_auto_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _processor(tmp_path, monkeypatch, "")
    recipe = small.recipe(train={"precision": "auto", "steps": 2}, out=str(tmp_path / "rows"))
    rows = compare(recipe, ["supervised"], seeds=1, progress=False)
    assert rows[0].recipe is not None and rows[0].recipe.train.precision == "32"
    again = replace(recipe, out=str(tmp_path / "rows"))
    assert len(compare(again, ["supervised"], seeds=1, progress=False)) == len(rows)


def test_auto_in_a_variant_is_refused() -> None:
    half = {"method": "supervised", "train": {"precision": "auto"}}
    with pytest.raises(ValueError, match=r"variants.half.train.precision is auto; expected 32"):
        compare(small.recipe(variants={"half": half}), ["half"], progress=False)
