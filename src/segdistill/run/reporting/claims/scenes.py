"""How far a difference depends on the scenes that it was measured on: a bootstrap over blocks of frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segdistill.run.evaluation.by_image import ByImage
from segdistill.run.reporting.notation import signed
from segdistill.run.reporting.summary import RunSummary, seed_pairs

DRAWS = 2000
LEAST = 5
"""Blocks, over all folds, below which an interval would only be the range of these few."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scenes:
    """The interval of a difference over scenes, in mIoU points."""

    low: float
    high: float
    blocks: int
    """number of blocks that were drawn from, over all folds"""
    frames: int
    """images in a block"""


def over_scenes(
    summaries: Sequence[RunSummary],
    label: str,
    reference: str,
    frames: int,
    draws: int = DRAWS,
    confidence: float = 0.95,
) -> Scenes | None:
    """The interval of the mean difference of two labels if other scenes had been measured.

    Blocks of consecutive images are drawn with replacement, as many as there are, in each fold by itself. A
    block never spans two drives. The confusion matrices of the drawn blocks are added, and mIoU is computed
    from the sum: IoUs are not averaged over images. All runs of a fold get the same blocks in a draw. Of the
    statistic, the mean of fold means of the differences paired by seed, the percentiles of all draws are
    the interval (Künsch 1989, The jackknife and the bootstrap for general stationary observations; with
    disjoint blocks). The seeds are not drawn: the interval is of the data's side only. The draws are seeded, so
    that the same runs give the same interval.

    Args:
        summaries: The runs, as measured on one set.
        label: The first of the pair.
        reference: The second.
        frames: Consecutive images in a block.
        draws: Number of draws.
        confidence: Two-sided probability of the interval, in (0, 1).

    Returns:
        None if a run has no counts of single images, images differ, a fold has a single block, or all folds have
        fewer than `LEAST`.
    """
    by_fold: dict[str, list[tuple[RunSummary, RunSummary]]] = {}
    for pair in seed_pairs(summaries, label, reference):
        by_fold.setdefault(pair[0].fold, []).append(pair)
    total, blocks = np.zeros(draws), 0
    for place, pairs in enumerate(by_fold.values()):
        found = _in_fold(pairs, frames, draws, place)
        if found is None:
            return None
        total, blocks = total + found[0], blocks + found[1]
    if blocks < LEAST:
        return None
    tail = 50 * (1 - confidence)
    low, high = np.percentile(total / len(by_fold), [tail, 100 - tail])
    return Scenes(float(low), float(high), blocks, frames)


def scenes_of(summaries: Sequence[RunSummary], label: str, reference: str) -> Scenes | None:
    """`over_scenes` with the frames that the recipes name; None where they name none."""
    frames = _frames(summaries)
    return over_scenes(summaries, label, reference, frames) if frames else None


def _frames(summaries: Sequence[RunSummary]) -> int:
    recipes = [run.recipe for run in summaries if run.recipe is not None and run.role != "teacher"]
    return max((recipe.scene_frames for recipe in recipes), default=0)


def scenes_in_words(summaries: Sequence[RunSummary], label: str, reference: str) -> str:
    """The interval of `scenes_of` in a sentence, or why there is none; "" where no recipe asks for one."""
    if not (frames := _frames(summaries)):
        return ""
    scenes = over_scenes(summaries, label, reference, frames)
    if scenes is None:
        return (
            f"No interval over scenes: expected at least {LEAST} blocks of up to {frames} frames, two or more in each "
            "fold, and counts of every image in all runs."
        )
    return (
        f"95 % interval over scenes ({scenes.blocks} blocks of up to {scenes.frames} frames, drawn again): "
        f"{signed(scenes.low)} to {signed(scenes.high)}."
    )


def _in_fold(
    pairs: Sequence[tuple[RunSummary, RunSummary]], frames: int, draws: int, place: int
) -> tuple[Floats, int] | None:
    """The mean difference in each draw of one fold, in points, and the number of blocks."""
    runs = [_counts(run.evaluation or {}) for pair in pairs for run in pair]
    if None in runs:
        return None
    known = [one for one in runs if one is not None]
    if any(one.names != known[0].names for one in known):
        return None
    blocks = known[0].blocks(frames)
    count = blocks[-1] + 1
    if count < 2:
        return None
    # One stream of draws per fold, since folds hold different blocks.
    times = np.random.default_rng([0, place]).multinomial(count, np.full(count, 1 / count), draws)
    absent = [
        ((run.evaluation or {}).get("protocol") or {}).get("absent") for p in pairs for run in p
    ]
    mious = [
        drawn_miou(one.summed(blocks), times, one.classes, rule == "zero")
        for one, rule in zip(known, absent, strict=True)
    ]
    differences = np.stack(mious[::2]) - np.stack(mious[1::2])
    return 100 * differences.mean(0), count


def _counts(evaluation: Mapping[str, Any]) -> ByImage | None:
    single = evaluation.get("by_image")
    return None if single is None else ByImage.from_json(single)


def drawn_miou(
    confusions: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    classes: int,
    absent_is_zero: bool = False,
) -> Floats:
    """mIoU, 0 to 1, of sums of confusion matrices.

    Args:
        confusions: Of each block, flat: `b k²`, rows labels, columns predictions.
        times: How often each block is in each sum: `draws b`.
        classes: Number of classes, k.
        absent_is_zero: A class without a label in the sum counts as 0; otherwise it is left out, also where it is
            predicted, so that both sides of a difference are means over the same classes.

    Returns:
        One value per draw.
    """
    matrices = confusions.reshape(-1, classes, classes)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    either = matrices.sum(1) + matrices.sum(2) - hits
    # Products of float64 are exact here: counts stay below 2^53.
    drawn = times.astype(np.float64)
    hit, union, labels = (
        drawn @ part.astype(np.float64) for part in (hits, either, matrices.sum(2))
    )
    iou = np.divide(hit, union, out=np.zeros_like(hit), where=union > 0)
    counted = classes if absent_is_zero else np.maximum((labels > 0).sum(1), 1)
    return np.asarray(iou.sum(1) / counted, np.float64)
