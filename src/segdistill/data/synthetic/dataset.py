"""Street scenes generated on the fly: the default data set, with nothing to download."""

from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from segdistill.data.dataset import SegmentationDataset
from segdistill.data.randomness import generator_for
from segdistill.data.synthetic.street import CLASSES, draw_street
from segdistill.names import unknown

COUNTS = {"train": 400, "val": 100, "test": 100}
LEAST_SIZE, LARGEST_SIZE = 32, 4096
MOST_SCENES = 1_000_000


class Synthetic(SegmentationDataset):
    """Generated street scenes of 11 classes, in any number and size.

    The scenes are designed to reward knowledge of class and position. Metrics on them show that
    the code works, not how good a method is on photographs. All classes share one set of colours:
    road and pavement have the same greys and differ by position; walls have the colours of
    sky, road and cars; posters, drainpipes and doors on walls look like signs, poles and persons
    but are labelled building; hedges (fence), trees and grass share their greens; puddles reflect
    the sky. Objects hide each other and are a few pixels wide in the distance, and every scene has
    its own camera, colours, haze, shadows, uneven light, texture and noise. The bonnet of the
    camera's car, in three of ten scenes, is ignored.

    A scene depends only on (seed, split, index), so splits share no scene, and a longer set begins
    with the shorter one. Do not report results on the seeds used for tuning.

    Args:
        root: Unused: there are no files.
        split: `train` (400 scenes unless `count` says otherwise), `val` or `test` (100).
        size: Height and width in pixels, at least 32 each.
        count: Number of scenes.
        seed: Another seed gives other scenes.
        limit: Keep only the first so many scenes.
        cache: Keep scenes in memory once drawn (4 bytes per pixel).

    Raises:
        ValueError: There is no such split, or a number is out of range.
    """

    def __init__(
        self,
        root: object = None,
        split: str = "train",
        *,
        size: Sequence[int] = (96, 128),
        count: int | None = None,
        seed: int = 0,
        limit: int | None = None,
        cache: bool = True,
    ) -> None:
        if split not in COUNTS:
            raise ValueError(unknown("synthetic split", split, COUNTS))
        count = COUNTS[split] if count is None else count
        if not 1 <= count <= MOST_SCENES:
            raise ValueError(f"count is {count}; expected 1 to {MOST_SCENES} scenes")
        if len(size) != 2 or not LEAST_SIZE <= min(size) <= max(size) <= LARGEST_SIZE:
            raise ValueError(
                f"size is {list(size)}; expected [height, width], {LEAST_SIZE} to {LARGEST_SIZE} pixels each"
            )
        super().__init__(
            [f"{split}-{seed}-{index:05d}" for index in range(count)],
            list(CLASSES),
            list(CLASSES.values()),
            limit=limit,
            cache=cache,
        )
        self.size = (int(size[0]), int(size[1]))
        self.seed, self.split = seed, split

    def load(self, position: int) -> tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "h w"]]:
        """Draw the scene at an index into all scenes."""
        return draw_street(self.size, generator_for("scene", self.seed, self.split, position))
