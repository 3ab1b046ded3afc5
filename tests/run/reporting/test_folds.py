"""Folds pooled with the fold as block, and the bootstrap over scenes, against independent computations."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from segdistill.run.evaluation.by_image import ByImage, entry_of
from segdistill.run.evaluation.evaluate import Evaluation
from segdistill.run.reporting.claims import scenes
from segdistill.run.reporting.claims.scenes import drawn_miou, over_scenes, scenes_in_words
from segdistill.run.reporting.claims.standing import context
from segdistill.run.reporting.claims.table import comparison_rows
from segdistill.run.reporting.statistics import paired, pooled, t_quantile, t_within
from segdistill.run.reporting.summary import RunSummary, mean_and_sd, paired_miou
from segdistill.run.reporting.verdict import verdicts
from tests.run import made_up


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5), (4, 1, 3)])
def test_the_pooled_interval_is_that_of_a_linear_model_with_a_mean_per_fold(
    sizes: tuple[int, ...],
) -> None:
    noise = np.random.default_rng(len(sizes))
    by_fold = {f"f{n}": list(noise.normal(n, 1.0, count)) for n, count in enumerate(sizes)}
    # Least squares with an indicator per fold; the estimate is the mean of its coefficients.
    design = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    values = np.concatenate(list(by_fold.values()))
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    df = len(values) - len(sizes)
    variance = ((values - design @ coefficients) ** 2).sum() / df
    weights = np.full(len(sizes), 1 / len(sizes))
    error = np.sqrt(variance * weights @ np.linalg.inv(design.T @ design) @ weights)
    estimate = coefficients.mean()

    result = pooled(by_fold)
    assert result.mean == pytest.approx(estimate)
    assert result.half_width == pytest.approx(t_quantile(0.95, df) * error)
    assert result.p == pytest.approx(1 - t_within(abs(estimate) / error, df))
    assert result.folds == pytest.approx({f: np.mean(v) for f, v in by_fold.items()})


def test_one_fold_is_the_paired_t_interval_and_one_seed_has_none() -> None:
    alone, plain = pooled({"a": [1.0, 2.0, 4.0]}), paired([1.0, 2.0, 4.0])
    assert (alone.mean, alone.half_width, alone.p) == pytest.approx(
        (plain.mean, plain.half_width, plain.p)
    )
    assert pooled({"a": [1.0], "b": [2.0]}).half_width is None


def test_a_difference_between_folds_does_not_widen_the_interval() -> None:
    near, far = pooled({"a": [1, 2], "b": [1, 2]}), pooled({"a": [1, 2], "b": [9, 10]})
    assert near.half_width == pytest.approx(far.half_width) and far.mean == pytest.approx(5.5)


def _folds() -> list[RunSummary]:
    return [
        replace(
            run, fold=fold, evaluation={**run.evaluation, "miou": run.evaluation["miou"] + shift}
        )
        for fold, shift in (("a", 0.0), ("b", -0.2))
        for run in made_up.three_seeds()
        if not (fold == "b" and run.seed == 2)
    ]


def test_runs_are_paired_by_fold_and_seed() -> None:
    runs = _folds()
    difference = paired_miou(runs, "idd", "control")
    assert difference is not None
    assert difference.differences == pytest.approx((2.8, 3.5, 3.0, 2.8, 3.5))
    assert difference.folds == pytest.approx({"a": 3.1, "b": 3.15})
    assert difference.mean == pytest.approx(3.125)
    row = next(row for row in comparison_rows(runs) if row.label == "control")
    means = [np.mean([62.0, 63.2, 61.4]), np.mean([42.0, 43.2])]
    assert row.miou == pytest.approx(np.mean(means))
    assert mean_and_sd(run for run in runs if run.label == "control")[0] == row.miou
    verdict = next(v for v in verdicts(runs) if v.label == "idd")
    assert verdict.tone == "better" and "mean of 2 folds, 5 paired runs" in verdict.headline
    assert "Each fold: a +3.1, b +3.2." in " ".join(verdict.details)
    assert context(runs).startswith("Mean mIoU of 2 folds: the teachers 64.0, the control")
    with pytest.raises(ValueError, match="are both control with seed 0"):
        comparison_rows([replace(run, fold="") for run in runs])


def test_images_are_counted_over_all_folds_and_one_seed_in_each_gives_no_interval() -> None:
    images = {"a": 62, "b": 171}
    runs = [
        replace(run, evaluation={**(run.evaluation or {}), "images": images[run.fold]})
        for run in _folds()
        if run.seed == 0
    ]
    verdict = next(v for v in verdicts(runs) if v.label == "idd")
    assert "(mean of 2 folds, 2 paired runs, 233 images)" in verdict.headline
    told = "Each fold: a +2.8, b +2.8. With one seed in each fold there is no interval. Add seeds."
    assert told in verdict.details
    alone = [run for run in runs if run.fold == "a"]
    assert "Mean mIoU of 1 fold: " in context(alone)


def _measured(seed: int, hits: float, images: int = 12, k: int = 3) -> dict[str, Any]:
    """An evaluation of made-up images of two drives; harder ones in the second."""
    noise = np.random.default_rng(seed)
    matrices = []
    for place in range(images):
        share = hits - 0.3 * (place >= images // 2)
        rows = noise.multinomial(400, [0.7, 0.29, 0.01])
        confusion = np.stack(
            [
                noise.multinomial(n, [share if i == j else (1 - share) / 2 for j in range(k)])
                for i, n in enumerate(rows)
            ]
        )
        matrices.append(torch.tensor(confusion))
    entries = [entry_of(place, f"i{place}", one) for place, one in enumerate(matrices)]
    result = Evaluation.from_confusion(torch.stack(matrices).sum(0), images=images)
    result.by_image = ByImage.of(entries, k, ["x"] * (images // 2) + ["y"] * (images // 2))
    return result.to_json()


def _runs(fold: str = "", images: int = 12) -> list[RunSummary]:
    return [
        replace(
            made_up.run(label, seed), fold=fold, evaluation=_measured(10 * seed + n, hits, images)
        )
        for n, (label, hits) in enumerate((("control", 0.75), ("idd", 0.85)))
        for seed in (0, 1)
    ]


def _slowly(runs: list[RunSummary], frames: int, draws: int, place: int) -> list[float]:
    """The mean difference in each draw, by adding up the matrices of the drawn images one by one."""
    singles = {(r.label, r.seed): ByImage.from_json(r.evaluation["by_image"]) for r in runs}
    first = next(iter(singles.values()))
    blocks = first.blocks(frames)
    count = max(blocks) + 1
    times = np.random.default_rng([0, place]).multinomial(count, np.full(count, 1 / count), draws)
    found = []
    for draw in times:
        differences = []
        for seed in (0, 1):
            mious = {}
            for label in ("idd", "control"):
                per_image = singles[label, seed].summed(range(len(blocks)))
                total = sum(draw[block] * one for block, one in zip(blocks, per_image, strict=True))
                confusion = torch.tensor(total).view(3, 3)
                mious[label] = 100 * Evaluation.from_confusion(confusion).miou
            differences.append(mious["idd"] - mious["control"])
        found.append(float(np.mean(differences)))
    return found


def test_the_bootstrap_adds_up_the_confusion_matrices_of_drawn_blocks() -> None:
    runs, harder = _runs("a"), _runs("b", images=8)
    slow = [_slowly(runs, 2, 60, 0), _slowly(harder, 2, 60, 1)]
    found = over_scenes([*runs, *harder], "idd", "control", 2, draws=60)
    assert found is not None and found.blocks == 6 + 4
    expected = np.percentile(np.mean(slow, 0), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert over_scenes([*runs, *harder], "idd", "control", 2, draws=60) == found


def _asking(runs: list[RunSummary], frames: int) -> list[RunSummary]:
    return [replace(r, recipe=replace(r.recipe, scene_frames=frames)) for r in runs]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (0, ""),
        (2, "95 % interval over scenes (6 blocks of up to 2 frames"),
        (3, "No interval over scenes: expected at least 5 blocks of up to 3 frames"),
        (30, "No interval over scenes: expected at least 5 blocks of up to 30 frames"),
    ],
)
def test_the_interval_over_scenes_or_its_lack_is_told(frames: int, said: str) -> None:
    text = scenes_in_words(_asking(_runs(), frames), "idd", "control")
    assert text.startswith(said) and bool(text) == bool(said)


def test_larger_blocks_give_wider_intervals_where_neighbours_are_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scenes, "LEAST", 2)
    runs = _runs()
    one, six = (over_scenes(runs, "idd", "control", frames) for frames in (1, 6))
    assert one is not None and six is not None and (one.blocks, six.blocks) == (12, 2)
    whole = paired_miou(runs, "idd", "control")
    assert whole is not None and one.low < whole.mean < one.high
    assert over_scenes(runs, "idd", "control", 12) == replace(six, frames=12)  # never across drives


def test_without_counts_of_single_images_there_is_no_interval() -> None:
    runs = _runs()
    bare = [
        replace(r, evaluation={k: v for k, v in r.evaluation.items() if k != "by_image"})
        for r in runs
    ]
    assert over_scenes(bare, "idd", "control", 2) is None
    assert over_scenes([*runs[:3], _runs(images=8)[3]], "idd", "control", 2) is None


def test_absent_classes_are_left_out_or_count_as_zero() -> None:
    confusion = np.array([[6, 2, 0, 2, 10, 0, 0, 0, 0]])
    times = np.array([[1], [3]])
    iou = [6 / 10, 10 / 14]
    assert drawn_miou(confusion, times, 3) == pytest.approx([sum(iou) / 2] * 2)
    assert drawn_miou(confusion, times, 3, absent_is_zero=True) == pytest.approx([sum(iou) / 3] * 2)


def test_a_class_that_is_predicted_and_in_no_drawn_label_is_left_out() -> None:
    confusion = np.array([[6, 2, 2, 2, 10, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 5]])
    first, both = drawn_miou(confusion, np.array([[1, 0], [1, 1]]), 3)
    assert first == pytest.approx((6 / 12 + 10 / 14) / 2)
    assert both == pytest.approx((6 / 12 + 10 / 14 + 5 / 7) / 3)
