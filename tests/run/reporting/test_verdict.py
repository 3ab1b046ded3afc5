from dataclasses import replace

import pytest

from segdistill.run.reporting.claims.gist import gist
from segdistill.run.reporting.claims.standing import context
from segdistill.run.reporting.verdict import best, verdicts
from tests.run.made_up import run, three_seeds


def seeds(label, gains, **changes):
    return [run(label, seed, gain, **changes) for seed, gain in enumerate(gains)]


def said(runs, label):
    verdict = next(v for v in verdicts(runs) if v.label == label)
    return verdict.headline, " ".join(verdict.details), verdict.tone


def test_a_clear_gain_is_stated_with_seeds_interval_and_detection_limit():
    headline, details, tone = said(three_seeds(), "idd")
    assert headline == "idd is 3.1 mIoU above plain training (mean of 3 seeds, 101 images)"
    assert tone == "better"
    assert "Each seed: +2.8, +3.5, +3.0." in details
    assert "95 % interval of the paired mean: +2.2 to +4.0" in details
    assert "3 seeds cannot detect gains below 0.9 mIoU" in details
    assert "the chance of that is 1 in 8" in details


def test_an_interval_that_includes_zero_shows_no_difference():
    headline, details, tone = said(three_seeds(), "kd")
    assert headline == ("kd: no clear difference from plain training (mean of 3 seeds, 101 images)")
    assert tone == "unclear"
    assert "Mean difference +0.6 mIoU." in details
    assert "by chance" not in details


def test_a_clear_loss_is_called_a_loss():
    runs = seeds("control", (0, 0.01, 0.02)) + seeds("kd", (-0.05, -0.041, -0.03))
    headline, details, tone = said(runs, "kd")
    assert headline == "kd is 5.0 mIoU below plain training (mean of 3 seeds, 101 images)"
    assert tone == "worse" and "Below the control in all 3" in details


def test_one_seed_cannot_rule_out_chance():
    headline, details, tone = said([run("control"), run("idd", 0, 0.031)], "idd")
    assert headline == (
        "idd is 3.1 mIoU above plain training (1 seed, 101 images): this may be chance"
    )
    assert tone == "unclear" and "interval" not in details


def measured_on(count, *runs):
    return [replace(r, evaluation={**r.evaluation, "images": count}) for r in runs]


def test_the_number_of_images_stands_beside_the_verdict_and_few_are_remarked_on():
    pair = run("control"), run("kd", 0, -0.02)
    few = measured_on(3, *pair)
    assert said(few, "kd")[0] == (
        "kd is 2.0 mIoU below plain training (1 seed, 3 images): this may be chance"
    )
    assert "Measured on 3 images: others may rank" in context(few)
    assert "1 seed, 1 image)" in said(measured_on(1, *pair), "kd")[0]
    assert "Measured on" not in context(measured_on(10, *pair))


def test_images_that_were_not_counted_or_differ_are_left_out():
    one, other = run("control"), run("idd", 0, 0.031)
    assert "(1 seed):" in said([*measured_on(7, one), other], "idd")[0]
    rows = [{"kind": "val", "step": 9, "miou": 0.5}]
    runs = [replace(r, evaluation=None, metrics=rows) for r in (one, other)]
    assert said(runs, "idd")[0] == "idd equals plain training (1 seed): this may be chance"


def test_a_gain_that_does_not_survive_holms_correction_is_unclear():
    # Two noisy methods beside one whose own p is 0.03: three times that is no longer under 0.05.
    runs = seeds("control", (0, 0, 0)) + seeds("idd", (0.02, 0.03, 0.021))
    alone = said(runs, "idd")
    runs += seeds("kd", (0.01, -0.01, 0)) + seeds("cwd", (-0.01, 0.01, 0.002))
    runs += seeds("skd", (-0.01, 0.011, 0.0))
    together = said(runs, "idd")
    assert alone[2] == "better" and together[2] == "unclear"
    assert together[0].endswith("this may be chance, as 4 methods were compared")
    assert "Holm's correction for 4 methods: p = 0." in together[1]


def test_the_best_is_the_largest_gain_among_clear_ones():
    assert best(verdicts(three_seeds())) == "idd"
    # kd gains more in the mean, but its seeds disagree.
    runs = seeds("control", (0, 0, 0)) + seeds("idd", (0.02, 0.021, 0.0205))
    assert best(verdicts([*runs, *seeds("kd", (0.0, 0.05, 0.1))])) == "idd"
    assert best(verdicts([run("control"), run("idd", 0, 0.03)])) is None
    assert best(verdicts(seeds("control", (0, 0)) + seeds("idd", (-0.03, -0.031)))) is None


def test_the_gist_states_size_speed_miou_and_their_measurement():
    # 40 000 000 / 3 271 686 = 12.23; 310.2 / 41.6 = 7.46. Of the teacher's 74.0 the seeds reach
    # 64.8, 66.7 and 64.4, which is 87.57, 90.14 and 87.03 %: mean 88.24, squares .45 + 3.59 + 1.47
    # = 5.51, sd 1.66.
    assert gist(three_seeds(), "idd") == (
        "idd: 12.2× smaller, 7.5× faster, keeps 88.2 ± 1.7 % of the teacher's mIoU (parameters; "
        "median latency of one image, 360 × 480 on cpu, 1 thread; mIoU: mean ± sd of 3 seeds)"
    )


def test_the_gist_leaves_out_unknown_parts():
    teacher, student = run("teacher", 0, 0.12), run("idd")
    alone = {"parameters": 4_000_000}
    assert gist([teacher, replace(student, profile=alone)], "idd") == (
        "idd: 10.0× smaller, keeps 83.8 % of the teacher's mIoU (parameters; mIoU: one seed)"
    )
    elsewhere = replace(student, profile={**student.profile, "threads": 8})
    assert "faster" not in gist([teacher, elsewhere], "idd")
    other_images = replace(student, evaluation={**student.evaluation, "images": 7})
    assert "keeps" not in gist([teacher, other_images], "idd")
    unknown = replace(student, profile=None, evaluation=None, metrics=())
    assert gist([teacher, unknown], "idd") is None
    assert gist([student], "idd") is None and gist([teacher], "idd") is None


def test_the_gist_of_a_larger_and_better_student():
    profile = {"parameters": 40_100_000, "latency_ms_median": 620.4, "size": [360, 480]}
    student = run("idd", 0, 0.2, profile={**profile, "threads": 1, "device": "cpu"})
    text = gist([run("teacher", 0, 0.12), student], "idd")
    assert text.startswith("idd: not smaller, 2.0× slower, reaches 110.8 % of the teacher's mIoU")


def test_the_largest_gain_comes_first():
    assert [v.label for v in verdicts(three_seeds())] == ["idd", "kd"]


def test_costs_and_unequal_budgets_are_reported():
    details = said(three_seeds(), "idd")[1]
    assert "A step takes 2.1 times as long as the control's" in details
    runs = [run("control", steps=1000), run("idd", steps=2000)]
    assert "The steps differ: 2,000 steps, and 1,000 for the control." in said(runs, "idd")[1]


def test_a_slower_step_is_not_held_against_a_method_that_had_equal_time():
    control, idd = run("control", steps=2000), run("idd", steps=2000)
    assert (
        "in the same time the control could run 2.1 times as many" in said([control, idd], "idd")[1]
    )
    assert "in the same time" not in said([control, run("idd", steps=950)], "idd")[1]


def test_unpaired_seeds_are_named():
    runs = [*three_seeds(), run("idd", 12)]
    assert "since unpaired: seed 12." in said(runs, "idd")[1]


def test_context_mentions_the_gap_only_for_clear_gains():
    text = context(three_seeds())
    assert "teacher reaches 74.0 mIoU and the control (plain training) 62.2" in text
    assert "idd closes 26 %" in text and "kd closes" not in text


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (("teacher", "idd"), "These runs have no control"),
        (("control", "idd"), "The control (plain training) reaches 62.2 mIoU."),
    ],
)
def test_context_without_control_or_teacher(kept, words):
    assert words in context([r for r in three_seeds() if r.label in kept])


def test_a_teacher_no_better_than_the_control_is_reported():
    runs = [run("teacher", 0, -0.1), run("control"), run("idd", 0, 0.1)]
    assert "little to teach" in context(runs)


def test_runs_without_an_miou_have_no_verdict():
    runs = [replace(r, evaluation=None, metrics=()) for r in three_seeds()]
    assert verdicts(runs) == []


@pytest.mark.parametrize(
    ("part", "changes", "told"),
    [
        ("train", {"batch": 2, "crop": (32, 32)}, "train.batch 2 against"),
        ("train", {"photometric": 0.5}, "train.photometric 0.5 against 0.0"),
        ("train", {"average": 0.9}, "train.average 0.9 against 0.0"),
        ("student", {"options": {"width": 3}}, "student.options.width 3 against by default"),
        ("data", {"train_options": {"limit": 4}}, "data.train_options.limit 4 against by default"),
        ("data", {"size": (60, 80)}, "data.size [60, 80] against"),
    ],
)
def test_what_differs_besides_the_methods_is_told(part, changes, told):
    runs = three_seeds()
    other = [
        replace(r, recipe=replace(r.recipe, **{part: replace(getattr(r.recipe, part), **changes)}))
        if r.label == "kd"
        else r
        for r in runs
    ]
    assert "Not only the methods differ" not in said(runs, "kd")[1]
    details = said(other, "kd")[1]
    assert "Not only the methods differ: " in details and told in details
    assert "Not only the methods differ" not in said(other, "idd")[1]


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("train", {"lr": 0.1, "weight_decay": 0.3, "workers": 3, "log_every": 7, "device": "cpu"}),
        ("data", {"root": "elsewhere", "options": {"cache": True}, "val_options": {"limit": 3}}),
    ],
)
def test_what_is_tuned_or_changes_no_result_is_not_told_as_a_difference(part, changes):
    runs = [
        replace(r, recipe=replace(r.recipe, **{part: replace(getattr(r.recipe, part), **changes)}))
        if r.label == "kd"
        else r
        for r in three_seeds()
    ]
    assert "Not only the methods differ" not in said(runs, "kd")[1]


def test_other_steps_in_the_same_time_are_told_as_such():
    runs = seeds("control", (0, 0.01), steps=2100) + seeds("kd", (0.03, 0.041), steps=1000)
    assert (
        "The steps differ: 1,000 steps, and 2,100 for the control, in 1.00 times the time."
        in said(runs, "kd")[1]
    )
    runs = seeds("control", (0, 0.01), steps=1500) + seeds("kd", (0.03, 0.041), steps=1000)
    assert "The steps differ: 1,000 steps, and 1,500 for the control." in said(runs, "kd")[1]
