"""Placebos in a comparison: each is one line of a recipe, and stands beside the method it tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from segdistill.config import TeacherConfig
from segdistill.run.compare import compare
from segdistill.run.comparing import entries_of
from segdistill.run.folder import RunFolder
from segdistill.run.identity import read_identity
from segdistill.run.identity.digests import state_digest
from segdistill.run.networks import load_teacher
from segdistill.run.reporting import comparison_rows, find_runs, summarise
from segdistill.run.reporting.claims.table import row_name
from segdistill.run.training.train import rehearse, train
from tests.run import small

NAMES = [f"class{number}" for number in range(small.CLASSES)]
ONE_LINE: dict[str, dict[str, Any]] = {
    "permuted": {"terms": {"inter_class": {"options": {"target": "permuted"}}}},
    "equal": {"terms": {"inter_class": {"options": {"target": "equal"}}}},
    "averaged": {"terms": {"position": {"options": {"target": "averaged"}}}},
    "shuffled": {"terms": {"position": {"options": {"target": "shuffled"}}}},
    "ramp": {"terms": {"position": {"options": {"target": "ramp"}}}},
}
BALANCED = {
    "method": "supervised",
    "role": "control",
    "terms": {"cross_entropy": {"options": {"balance": "sqrt"}}},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "balanced": BALANCED,
    "idd": {"method": "idd"},
    **{name: {"method": "idd", "role": "placebo", **line} for name, line in ONE_LINE.items()},
    "random": {"method": "idd", "teacher": {"random": True}},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run")


def _values(teacher: RunFolder, out: Path, /, **changes: Any) -> dict[str, Any]:
    # The position term stays on, though such a teacher has nothing to teach.
    terms = {"position": {"options": {"switch_off": "never", "steps": 2}}}
    changes = {"train": {"steps": 2, "log_every": 1}, "terms": terms, **changes}
    return {**small.distilled(teacher.path, out=str(out)), **changes}


@pytest.fixture(scope="module")
def compared(teacher: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("placebos")
    recipe = small.recipe(**_values(teacher, out, variants=VARIANTS))
    compare(recipe, list(VARIANTS), seeds=1, progress=False)
    return out


def _first_values(run: RunFolder) -> dict[str, float]:
    """The value of each term at step 1, when all runs still have the same student."""
    row = next(row for row in run.metrics() if row["kind"] == "train")
    return {name: term["value"] for name, term in row["terms"].items()}


def test_each_placebo_trains_on_a_target_of_its_own(compared: Path) -> None:
    first = {name: _first_values(RunFolder(compared / f"{name}-s0")) for name in VARIANTS}
    assert first["balanced"]["cross_entropy"] != first["idd"]["cross_entropy"]
    for name, line in ONE_LINE.items():
        (changed,) = line["terms"]
        for term, value in first["idd"].items():
            assert (first[name][term] == pytest.approx(value, rel=1e-6)) == (term != changed), name


def test_the_table_has_each_placebo_beside_its_method(compared: Path) -> None:
    methods = json.loads((compared / "comparison.json").read_text())["methods"]
    assert methods["balanced"]["role"] == "control"
    assert methods["random"]["role"] == "placebo"
    assert {name: row.get("tests") for name, row in methods.items() if name != "teacher"} == {
        "balanced": None,
        "idd": None,
        **dict.fromkeys([*ONE_LINE, "random"], "idd"),
    }


def test_a_random_teacher_is_left_out_of_what_the_table_says_of_the_teacher(
    compared: Path, teacher: RunFolder
) -> None:
    run, real = (RunFolder(compared / f"{name}-s0") for name in ("random", "idd"))
    ours, theirs = (read_identity(one) for one in (run, real))
    assert ours is not None and theirs is not None and ours.teacher != theirs.teacher
    audit = run.teacher()
    assert audit is not None and (audit["random"], audit["miou"]) == (True, None)
    assert "sha256" not in audit
    content = json.loads((compared / "comparison.json").read_text())
    own = teacher.evaluation()
    assert own is not None and content["teacher"]["miou"] == pytest.approx(100 * own["miou"])
    assert _first_values(run)["pixelwise"] != _first_values(real)["pixelwise"]
    summaries = summarise(find_runs([compared]))
    assert [summary.role for summary in summaries].count("teacher") == 1
    names = [row_name(row) for row in comparison_rows(summaries)]
    assert "random (placebo of idd, random teacher)" in names
    assert "permuted (placebo of idd)" in names


def test_the_log_says_which_row_has_a_random_teacher(
    compared: Path, teacher: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    recipe = small.recipe(**_values(teacher, compared, variants=VARIANTS))
    before = (compared / "random-s0" / "model.safetensors").stat().st_mtime_ns
    compare(recipe, list(VARIANTS), seeds=1, progress=False)
    line = "random: a placebo whose teacher has random weights; all other rows share one teacher"
    assert line in caplog.messages
    assert (compared / "random-s0" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (
            {"method": "kd", "teacher": {"run": "other"}},
            r"variants\.x\.teacher changes the teacher; expected random: true, as all other variants",
        ),
        ({"method": "kd", "teacher": {"randm": True}}, r"variants\.x\.teacher\.randm: .*random"),
        (
            {"method": "kd", "teacher": {"random": True, "scale": 1000}},
            r"variants\.x\.teacher\.scale is 1000",
        ),
        (
            {"method": "kd", "teacher": {"random": True}, "role": "method"},
            r"variants\.x\.role is method with a random teacher; expected placebo",
        ),
        (
            {"method": "supervised", "teacher": {"random": True}},
            r"variants\.x\.teacher is random, but nothing learns from it",
        ),
    ],
)
def test_other_teachers_of_a_variant_are_refused(
    variant: dict[str, Any], message: str, teacher: RunFolder, tmp_path: Path
) -> None:
    variants = {"kd": {"method": "kd"}, "x": variant}
    with pytest.raises(ValueError, match=message):
        entries_of(small.recipe(**_values(teacher, tmp_path, variants=variants)), list(variants))


def test_a_random_teacher_is_accepted_whatever_its_miou(
    teacher: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    values = {"run": str(teacher.path), "min_miou": 90.0, "random": True}
    recipe = small.recipe(
        **_values(teacher, tmp_path / "run", teacher=values, method="kd", terms={})
    )
    run = train(recipe, progress=False)
    (line,) = [text for text in caplog.messages if text.startswith("teacher: ")]
    assert line == f"teacher: {teacher.path} with random weights, as a placebo; not measured"
    (summary,) = summarise(find_runs([run.path]))
    assert summary.role == "placebo"
    (row,) = comparison_rows([summary])
    assert row_name(row) == "kd (placebo, random teacher)"


def test_a_random_teacher_needs_no_trained_weights(teacher: RunFolder) -> None:
    config = TeacherConfig(model=small.MODEL, options={"width": 12}, random=True)
    model, origin = load_teacher(config, NAMES)
    same, _ = load_teacher(TeacherConfig(run=str(teacher.path), random=True), NAMES)
    assert origin["random"] and state_digest(model) == state_digest(same)


@pytest.mark.parametrize("target", ["averaged", "shuffled"])
def test_batches_without_another_image_are_refused_before_step_1(
    target: str, teacher: RunFolder, tmp_path: Path
) -> None:
    terms = {"position": {"options": {"target": target}}}
    recipe = small.recipe(
        **_values(teacher, tmp_path / "run", terms=terms, train={"batch": 2, "accumulate": 2})
    )
    (problem,) = rehearse(recipe, NAMES)
    assert problem == (
        "terms.position: train.batch in 2 parts has 1 image; expected 2 or more. Raise train.batch"
    )
