from contextlib import nullcontext
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from segdistill.config import MethodConfig, VariantConfig
from segdistill.run.comparing import claims_of, entries_of, finished_runs, register, registered
from segdistill.run.folder import write_json
from segdistill.run.identity import IdentityDiffers
from segdistill.run.reporting.claims.gist import gist
from segdistill.run.reporting.claims.registered import (
    claim_tables,
    claims,
    claims_as_json,
    claims_view,
    exploratory,
    waiting_in_words,
)
from segdistill.run.reporting.claims.standing import context
from segdistill.run.reporting.claims.table import comparison_rows, further_table
from segdistill.run.reporting.page import render
from segdistill.run.reporting.reading.runs import _with_one_meaning
from segdistill.run.reporting.statistics import holm, paired
from segdistill.run.reporting.summary import RunSummary, paired_miou
from segdistill.run.reporting.verdict import verdicts
from segdistill.run.training.checks import check_reading
from tests.run import made_up, small

PAIRS = [["idd", "control"], ["idd", "kd"]]


def _runs(pairs: Any = PAIRS, on: str | None = None, **keys: Any) -> list[RunSummary]:
    """Three seeds whose `far` set turns the order of idd and the control round."""
    changed = []
    for run in made_up.three_seeds():
        recipe = replace(run.recipe, contrasts=pairs, claims_on=on, **keys)
        evaluation = {**run.evaluation, "split": "val", "classes": made_up.CLASSES}
        gain = {"idd": -0.03, "control": 0.02}.get(run.label, 0.0)
        far = {**evaluation, "miou": evaluation["miou"] + gain - 0.1}
        changed.append(replace(run, recipe=recipe, evaluation=evaluation, sets={"far": far}))
    return changed


def test_holm_runs_over_the_registered_claims_alone() -> None:
    runs = _runs()
    found = claims(runs)
    assert [(c.contrast.label, c.contrast.reference) for c in found] == [tuple(p) for p in PAIRS]
    plain = {
        str(n): (paired_miou(runs, *pair) or paired([0.0])).p or 0 for n, pair in enumerate(PAIRS)
    }
    assert [c.p for c in found] == list(holm(plain).values())
    assert [c.tone for c in found] == ["better", "unclear"]
    assert exploratory(runs) == [("kd", "control")]
    (alone,) = claims(_runs([["idd", "kd"]]))
    assert alone.p == pytest.approx(plain["1"])


@pytest.mark.parametrize(("on", "told"), [(None, "mIoU: mean"), ("far", "mIoU on far: mean")])
def test_the_gist_is_of_the_set_that_claims_are_made_on(on: str | None, told: str) -> None:
    runs = _runs(on=on)
    sets = {"far": {"miou": 0.5}}
    teacher = replace(runs[0], role="teacher", evaluation={"miou": 0.8}, sets=sets)
    said = gist([teacher, *(run for run in runs if run.role != "teacher")], "idd") or ""
    idd = [run if on is None else run.on(on) for run in runs if run.label == "idd"]
    share = sum(run.miou or 0 for run in idd) / len(idd) / (0.8 if on is None else 0.5)
    assert told in said and f"{share:.1f}" in said


def test_a_claim_that_waits_for_runs_counts_and_is_told() -> None:
    runs = _runs([*PAIRS, ["idd", "hint"]])
    before = [claim.p or 1 for claim in claims(_runs())]
    after = [claim.p or 1 for claim in claims(runs)]
    # Three claims instead of two, the missing one with p = 1.
    assert after[0] == pytest.approx(min(1, 3 / 2 * before[0])) and after[1] >= before[1]
    assert claims_as_json(runs)["claims_waiting"] == [["idd", "hint"]]
    assert claims_as_json(_runs())["claims_waiting"] == []
    assert claim_tables(runs)[0].title == "Registered claims on val; Holm over 3"
    told = "1 registered claim waits for runs and counts with p = 1: idd − hint"
    assert waiting_in_words(runs) == told and waiting_in_words(_runs()) is None
    page = render(made_up.full_report(summaries=runs))
    assert told in page and "correction runs over 3 claims" in page
    (verdict,) = verdicts(runs)
    assert "3 registered claims" in " ".join([verdict.headline, *verdict.details])


def test_where_every_claim_waits_page_and_log_say_so() -> None:
    runs = _runs([["idd", "hint"], ["hint", "kd"]])
    assert claims(runs) == [] and verdicts(runs) == []
    told = "2 registered claims wait for runs and count with p = 1: idd − hint, hint − kd"
    assert waiting_in_words(runs) == told
    assert told in render(made_up.full_report(summaries=runs))


def test_a_claim_with_one_seed_in_common_counts() -> None:
    runs = [run for run in _runs() if run.label != "kd" or run.seed == _runs()[-1].seed]
    found = {claim.contrast.reference: claim for claim in claims(runs)}
    assert found["kd"].p is None and waiting_in_words(runs) is None
    alone = claims(_runs([["idd", "control"]]))[0].p
    assert found["control"].p == pytest.approx(2 * alone)  # type: ignore[operator]


def _some_compared(methods: list[str]) -> list[list[str]]:
    """The claims where only some of the recipe's rows are compared."""
    recipe = small.recipe()
    recipe.variants = {
        "other": VariantConfig(method=MethodConfig("hint"), label="regression"),
        "tuned": VariantConfig(method=MethodConfig("kd"), role="control", label="tuned KD"),
        "idd": VariantConfig(method=MethodConfig("idd")),
    }
    recipe.contrasts = [["idd", "control"], ["idd", "other"], ["idd", "tuned KD"]]
    return claims_of(recipe, entries_of(recipe, methods))


def test_a_claim_means_the_same_whatever_is_compared_this_time() -> None:
    whole = _some_compared(["supervised", "other", "tuned", "idd"])
    assert whole == [["idd", "control"], ["idd", "regression"], ["idd", "tuned KD"]]
    for methods in (["tuned", "idd"], ["supervised", "idd"], ["idd"], ["other"]):
        assert _some_compared(methods) == whole


def test_what_the_recipe_never_compares_cannot_be_waited_for() -> None:
    recipe = small.recipe()
    recipe.contrasts = [["kd", "hint"]]
    with pytest.raises(ValueError, match="no entry of the comparison named 'hint'"):
        claims_of(recipe, entries_of(recipe, ["supervised", "kd"]))
    claimed = claims_of(recipe, entries_of(recipe, ["kd", "hint"]))
    assert claimed == [["kd", "hint"]]


def test_a_label_without_a_claim_has_no_verdict() -> None:
    found = verdicts(_runs())
    assert [v.label for v in found] == ["idd"]
    assert found[0].tone == "unclear" and found[0].control == "kd"
    assert any("after Holm: better" in text for text in found[0].details)
    assert {v.label for v in verdicts(_runs([]))} == {"kd", "idd"}
    assert claims_view(_runs([])) is None and claims_as_json(_runs([])) == {}


def test_claims_are_made_on_the_set_that_is_named() -> None:
    (on_far,) = claims(_runs([["idd", "control"]], "far"))
    assert on_far.tone == "worse"
    assert on_far.contrast.difference.mean == pytest.approx(3.1 - 5.0)
    view = claims_view(_runs([["idd", "control"]], "far"))
    assert view is not None and view["sets"] == ["far", "val"]
    assert view["claims"][0][:3] == ["idd − control", "−1.9 ± 0.9", "+3.1 ± 0.9"]
    assert context(_runs(on="far")).startswith("On far: ")
    content = claims_as_json(_runs(on="far"))
    assert content["claims_on"] == "far"
    assert content["claims"][0]["on"]["val"]["mean"] == pytest.approx(3.1)
    assert [set(one) for one in content["exploratory"]] == [{"label", "reference", "on"}]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (
            {"train_options": {"groups": ["a"]}, "val_options": {"groups": ["b"]}},
            "train (held out)",
        ),
        ({"val_options": {"groups": ["b"]}}, "train"),
        ({"train_options": {"groups": ["a", "b"]}, "val_options": {"groups": ["b"]}}, "train"),
        ({"val_options": {"limit": 20}}, "train"),
        ({}, "train"),
    ],
)
def test_images_held_out_of_the_training_split_are_not_called_training_images(
    options: dict[str, Any], name: str
) -> None:
    data = small.parse_recipe({"data": {"name": "synthetic", "val_split": "train", **options}}).data
    runs = [
        replace(
            run,
            recipe=replace(run.recipe, data=data),
            evaluation={**(run.evaluation or {}), "split": "train"},
        )
        for run in _runs()
    ]
    assert claim_tables(runs)[0].title == f"Registered claims on {name}; Holm over 2"
    assert f"The claims are made on {name}, and" in render(made_up.full_report(summaries=runs))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"thin_classes": ["pol"]}, "thin_classes: no class named 'pol'; did you mean 'pole'"),
        ({"thin_classes": ["pole", "sign", "pole"]}, "thin_classes names pole twice"),
        ({"claims_on": "far"}, "claims_on: no evaluation set named 'far'"),
        ({"thin_classes": ["pole", "sign"]}, None),
    ],
)
def test_what_is_read_after_the_training_is_checked_before(
    keys: dict[str, Any], message: str | None
) -> None:
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        check_reading(small.recipe(**keys), ["road", "pole", "sign"])


def test_a_set_of_different_data_is_left_out_unless_claims_are_made_on_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def runs(on: str | None = None) -> list[RunSummary]:
        data = {"control": "b"}
        return [
            replace(
                run,
                sets={
                    name: {
                        **one,
                        "of": {"data": data.get(run.label, "a") if name == "far" else "a"},
                    }
                    for name, one in {"near": run.sets["far"], **run.sets}.items()
                },
            )
            for run in _runs(on=on)
        ]

    assert {tuple(run.sets) for run in _with_one_meaning(runs())} == {("near",)}
    assert "were measured on different data as evaluation set 'far', so it is left out" in (
        caplog.text
    )
    assert {tuple(run.sets) for run in _with_one_meaning(runs("near"))} == {("near",)}
    with pytest.raises(IdentityDiffers, match="'far', which claims are made on"):
        _with_one_meaning(runs("far"))


def test_thin_classes_have_a_column_of_their_own() -> None:
    runs = _runs(thin_classes=["pole", "sign"])
    row = next(row for row in comparison_rows(runs) if row.label == "idd")
    own = [run for run in runs if run.label == "idd"]
    expected = [100 * (run.evaluation["iou"][2] + run.evaluation["iou"][6]) / 2 for run in own]
    assert list(row.thin[""].by_seed.values()) == pytest.approx(expected)
    assert row.thin[""].difference is not None and row.thin["far"].miou is not None
    assert not comparison_rows(_runs())[0].thin


def test_the_tables_show_claims_with_and_other_pairs_without_a_verdict() -> None:
    runs = _runs(on="far")
    registered_table, other = claim_tables(runs)
    assert [c.header for c in registered_table.columns] == [
        "",
        "far",
        "val",
        "after Holm",
        "verdict",
    ]
    assert [c.header for c in other.columns] == ["", "far", "val"]
    page = render(made_up.full_report(summaries=runs))
    assert "Exploratory: every other pair, without a verdict" in page
    assert "Exploratory" not in render(made_up.full_report())


def _entries(recipe: Any) -> Any:
    return entries_of(recipe, ["supervised", *recipe.variants])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([["idd"]], r"contrasts.0 is \[idd\]; expected two entries"),
        (
            [["idd", "kdd"]],
            r"contrasts.0: no entry of the comparison named 'kdd'; did you mean 'kd'",
        ),
        ([["idd", "kd"], ["kd", "idd"]], r"contrasts.1 is \[knowledge, idd\], which stands twice"),
        ([["idd", "idd"]], r"contrasts.0 is \[idd, idd\]; expected two different entries"),
    ],
)
def test_a_mistake_in_a_claim_is_refused(pairs: Any, message: str) -> None:
    recipe = small.recipe()
    recipe.variants = {
        "idd": VariantConfig(method=MethodConfig("idd")),
        "kd": VariantConfig(method=MethodConfig("kd"), label="knowledge"),
    }
    recipe.contrasts = [["idd", "control"], ["kd", "supervised"]]
    assert claims_of(recipe, _entries(recipe)) == [["idd", "control"], ["knowledge", "control"]]
    recipe.contrasts = pairs
    with pytest.raises(ValueError, match=message):
        claims_of(recipe, _entries(recipe))


def test_claims_after_results_are_told(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    register(tmp_path, [], None, {"idd": 3})
    assert registered(tmp_path) is None
    register(tmp_path, PAIRS, None, {})
    register(tmp_path, PAIRS, None, {"idd": 3, "control": 2})
    assert (registered(tmp_path) or {})["finished_before"] == 0 and not caplog.messages
    register(tmp_path, PAIRS, "far", {"idd": 3, "control": 2})
    assert (registered(tmp_path) or {})["finished_before"] == 5
    assert caplog.messages == ["claims are registered after 5 runs of their rows finished"]


@pytest.mark.parametrize(
    ("first", "then", "finished", "count"),
    [
        # A new row's claims against rows that are finished: nobody has seen its difference.
        (PAIRS, [*PAIRS, ["best", "kd"]], {"idd": 4, "kd": 4, "control": 4}, 0),
        (PAIRS, [*PAIRS, ["best", "kd"]], {"idd": 4, "kd": 4, "best": 1}, 5),
        (PAIRS, [*PAIRS, ["kd", "control"]], {"idd": 4, "kd": 3, "control": 4}, 7),
        # One of several claims that is dropped may have been dropped for its result.
        (PAIRS, PAIRS[:1], {"idd": 1, "best": 2}, 3),
        (PAIRS, [PAIRS[0], ["best", "kd"]], {"idd": 1, "kd": 1}, 2),
        ([], PAIRS, {"idd": 2, "control": 3, "kd": 0}, 5),
        ([], PAIRS, {"control": 3, "kd": 2}, 0),
    ],
)
def test_a_claim_counts_as_late_only_if_its_difference_can_have_been_seen(
    tmp_path: Any, first: Any, then: Any, finished: dict[str, int], count: int
) -> None:
    register(tmp_path, first, None, {})
    register(tmp_path, then, None, finished)
    assert registered(tmp_path) == {"contrasts": then, "on": None, "finished_before": count}
    register(tmp_path, [*then, ["new", "kd"]], None, finished)  # a late claim stays one
    assert (registered(tmp_path) or {})["finished_before"] == count


def test_finished_runs_are_counted_by_label_whether_they_are_compared_or_not(tmp_path: Any) -> None:
    recipe = small.recipe()
    recipe.variants = {
        "idd": VariantConfig(method=MethodConfig("idd")),
        "kd": VariantConfig(method=MethodConfig("kd"), label="knowledge"),
    }
    for fold, name in [("a", "kd-s0"), ("a", "kd-s1"), ("b", "kd-s0"), ("b", "idd-s0"), ("b", "x")]:
        (tmp_path / fold / name).mkdir(parents=True)
        (tmp_path / fold / name / "config.yaml").touch()
        if name != "idd-s0":
            for file in ("evaluation.json", "model.json", "identity.json"):
                write_json(tmp_path / fold / name / file, {})
    compared = entries_of(recipe, ["idd"])
    folders = [tmp_path / name for name in ("a", "b", "missing")]
    found = finished_runs(recipe, compared, folders)
    assert [(run.label, run.seed, run.path.parent.name) for run in found] == [
        *(("knowledge", 0, "a"), ("knowledge", 1, "a"), ("knowledge", 0, "b"))
    ]


def test_further_sets_fit_eighty_columns_with_their_labels() -> None:
    sets = [f"another drive {number}" for number in range(5)]
    runs = [
        replace(run, sets={name: run.sets["far"] for name in sets})
        for run in _runs(thin_classes=made_up.CLASSES[:1])
    ]
    table = further_table(runs)
    assert table is not None and further_table(made_up.three_seeds()) is None
    text = StringIO()
    Console(file=text, width=80).print(table)
    lines = text.getvalue().splitlines()
    for name in ["thin classes", *sets, *(f"{name}, thin classes" for name in sets)]:
        (start,) = (n for n, line in enumerate(lines) if line.startswith(f"{name}  "))
        shown = [line[len(name) :].split()[0] for line in lines[start : start + 1]]
        shown += [line.split()[0] for line in lines[start + 1 : start + 4]]
        assert shown == ["teacher", "control", "kd", "idd"]
    assert "…" not in text.getvalue()
