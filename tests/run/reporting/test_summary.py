import io

import pytest
from rich.console import Console

from segdistill.run.reporting.claims.table import comparison_rows, comparison_table, input_sizes
from segdistill.run.reporting.notation import (
    difference_text,
    factor,
    quantity,
    signed,
    spread,
    time_unit,
)
from segdistill.run.reporting.statistics import paired
from segdistill.run.reporting.summary import (
    RunSummary,
    by_label,
    class_changes,
    default_subject,
    methods,
    paired_miou,
    seed_pairs,
    with_profiles,
)
from tests.run.made_up import CLASSES, run, three_seeds


def test_fractions_become_points():
    summary = RunSummary(
        "a", "idd", "method", evaluation={"miou": 0.5, "iou": [0.25, None], "pixel_accuracy": 0.75}
    )
    assert (summary.miou, summary.iou, summary.pixel_accuracy) == (50, [25, None], 75)


def test_without_an_evaluation_the_last_validation_is_used():
    rows = [{"kind": "val", "step": s, "miou": m} for s, m in ((10, 0.2), (20, 0.4))]
    assert RunSummary("a", "idd", "method", metrics=rows).miou == 40
    assert RunSummary("a", "idd", "method").miou is None


def test_training_time_is_summed_over_the_steps_of_each_row():
    rows = [
        {"kind": "train", "step": 10, "seconds_per_step": 0.5},
        {"kind": "val", "step": 10, "miou": 0.1},
        {"kind": "train", "step": 30, "seconds_per_step": 0.2},
        {"kind": "train", "step": 40, "seconds_per_step": 0.1},
    ]
    summary = RunSummary("a", "idd", "method", metrics=rows)
    # 10 · 0.5 + 20 · 0.2 + 10 · 0.1 = 10; the median of the rows is 0.2.
    assert summary.training_seconds == pytest.approx(10)
    assert summary.seconds_per_step == 0.2
    assert (
        RunSummary("a", "idd", "method", metrics=rows, wall_seconds=12.5).training_seconds == 12.5
    )
    assert RunSummary("a", "idd", "method").training_seconds is None


def test_labels_are_ordered_teacher_control_methods():
    runs = [run("idd"), run("kd"), run("control"), run("teacher")]
    assert list(by_label(runs)) == ["teacher", "control", "idd", "kd"]
    assert methods(runs) == ["idd", "kd"]


def test_a_report_focuses_on_idd_or_else_the_last_method():
    assert default_subject([run("idd-paper"), run("kd"), run("control")]) == "idd-paper"
    assert default_subject([run("skd"), run("kd")]) == "kd"
    assert default_subject([run("control"), run("teacher")]) == "control"


def test_one_measured_profile_applies_to_all_students_of_its_size():
    timed = {
        label: {"parameters": count, "latency_ms_median": ms}
        for label, count, ms in (("teacher", 40_000_000, 300), ("idd", 3_271_686, 40))
    }
    audited = RunSummary("teacher", "teacher", "teacher")
    other = run("wide", profile={"parameters": 5})
    runs = [audited, run("control"), run("idd", 1), other]
    found = [run.profile for run in with_profiles(runs, timed)]
    assert [profile.get("latency_ms_median") for profile in found] == [300, 40, 40, None]


def test_networks_of_equal_size_keep_their_measurements():
    timed = {
        label: {"parameters": 3_271_686, "latency_ms_median": ms}
        for label, ms in (("teacher", 50), ("idd", 40))
    }
    assert with_profiles([run("idd")], timed)[0].profile == timed["idd"]


def test_two_runs_of_one_method_and_seed_are_refused():
    with pytest.raises(ValueError, match="'idd-s1' and 'again' are both idd with seed 1"):
        by_label([run("idd", 1), run("idd", 1, name="again")])


def test_runs_are_paired_by_seed_whatever_their_order():
    runs = [
        run("idd", 1, 0.05),
        run("control", 0, 0.0),
        run("idd", 0, 0.02),
        run("control", 1, 0.01),
    ]
    assert [(one.seed, other.seed) for one, other in seed_pairs(runs, "idd")] == [(0, 0), (1, 1)]
    assert paired_miou(runs, "idd").differences == pytest.approx((2.0, 4.0))
    assert paired_miou(runs, "control", "idd").mean == pytest.approx(-3.0)


def test_seeds_without_a_partner_are_left_out():
    runs = [run("control", 0), run("idd", 0, 0.02), run("idd", 5, 0.4)]
    assert paired_miou(runs, "idd").differences == pytest.approx((2.0,))
    assert paired_miou(runs[1:], "idd") is None


def test_comparison_rows_hold_mean_sd_and_paired_difference():
    rows = {row.label: row for row in comparison_rows(three_seeds())}
    # Control 62.0, 63.2, 61.4: mean 62.2, squares .04 + 1 + .64 = 1.68, sd √.84.
    assert rows["control"].miou == pytest.approx(62.2)
    assert rows["control"].miou_sd == pytest.approx(0.84**0.5)
    assert rows["control"].difference is None and rows["teacher"].difference is None
    assert rows["idd"].difference.differences == pytest.approx((2.8, 3.5, 3.0))
    assert rows["teacher"].miou_sd is None
    assert rows["idd"].parameters == 3_271_686
    assert rows["kd"].seconds_per_step == pytest.approx(0.168)


def test_the_terminal_table_shows_each_seed():
    text = io.StringIO()
    Console(file=text, width=160).print(comparison_table(three_seeds()))
    line = next(line for line in text.getvalue().splitlines() if line.startswith("idd"))
    for cell in ("65.3 ± 1.2", "+3.1 ± 0.9", "+2.8 +3.5 +3.0", "3.272 M", "0.168"):
        assert cell in line


def test_multiply_adds_at_several_sizes_are_labelled():
    whole = run("teacher", profile={"multiply_adds": 4.0, "size": [360, 480]})
    half = [
        run(label, profile={"multiply_adds": 1.0, "size": [180, 240]})
        for label in ("control", "idd")
    ]
    assert input_sizes(half) == "at 180 × 240 input"
    assert input_sizes([whole, *half]) == "at 360 × 480 (teacher), 180 × 240 (control, idd)"
    assert input_sizes([run("idd", profile=None)]) == ""
    text = io.StringIO()
    Console(file=text, width=160).print(comparison_table([whole, *half]))
    assert "mult-adds at 360 × 480 (teacher), 180 × 240 (control, idd)" in text.getvalue()


def test_classes_are_sorted_by_change_and_unknown_ones_come_last():
    iou = {"control": [0.5, 0.5, None], "idd": [0.4, 0.7, 0.3]}
    runs = [run(label, evaluation={"miou": 0.5, "iou": values}) for label, values in iou.items()]
    changes = class_changes(runs, ["road", "pole", "never"], "idd")
    assert [change.name for change in changes] == ["pole", "road", "never"]
    assert changes[0].change.mean == pytest.approx(20)
    assert changes[1].iou == {"control": 50, "idd": pytest.approx(40)}
    assert changes[2].change is None and changes[2].iou["control"] is None


def test_class_changes_are_paired_over_seeds():
    change = next(c for c in class_changes(three_seeds(), CLASSES, "idd") if c.name == "bicyclist")
    assert len(change.change.differences) == 3


def test_factors_are_named_for_their_side_of_one():
    assert [factor(ratio, "faster", "slower") for ratio in (7.46, 0.4, 142.6, 1.04)] == [
        "7.5× faster",
        "2.5× slower",
        "143× faster",
        "not faster",
    ]


def test_notation():
    assert [signed(v) for v in (1.25, -0.3, 0.04, -0.04, None)] == [
        "+1.2",
        "−0.3",
        "±0.0",
        "±0.0",
        "–",
    ]
    assert spread(62.23, 0.917) == "62.2 ± 0.9" and spread(62.23, None) == "62.2"
    assert spread(None, None) == "–"
    assert difference_text(paired([2.0])) == "+2.0" and difference_text(None) == ""
    assert [quantity(v) for v in (13_068_262, 125.8e9, 363_462, 12, None)] == [
        "13.07 M", "125.8 G", "363.5 k", "12", "–",
    ]  # fmt: skip
    assert time_unit([45, None, 79]) == ("s", 1) and time_unit([None]) == ("s", 1)
    assert time_unit([45, 360]) == ("min", 60) and time_unit([45, 12_000]) == ("h", 3600)
