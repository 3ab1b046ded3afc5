"""The confusion matrix of each image of an evaluation, kept sparse, so that images can be drawn again."""

import base64
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Entry = tuple[int, str, npt.NDArray[np.int64]]
"""place of an image in its data set, its name, and its cells: two rows, flat index and count"""


def entry_of(place: int, name: str, confusion: Tensor) -> Entry:
    """The entry of one image; of its confusion matrix only the cells above zero."""
    flat = confusion.flatten()
    cells = flat.nonzero().flatten()
    return place, name, torch.stack([cells, flat[cells]]).cpu().numpy()


@dataclass(frozen=True, eq=False)
class ByImage:
    """Confusion matrices of single images, in the order of their data set.

    Attributes:
        names: Name of each image.
        groups: Drive or sequence of each image; "" where the data set names none.
        classes: Number of classes, k.
        cells: int64 `3 n`: for each cell above zero the image's place in `names`, the index in the flat k × k
            matrix (rows labels, columns predictions), and the count.
    """

    names: list[str]
    groups: list[str]
    classes: int
    cells: npt.NDArray[np.int64]

    @classmethod
    def of(cls, entries: Iterable[Entry], classes: int, groups: Sequence[str] = ()) -> "ByImage":
        """Collect the entries of all images, in any order.

        Args:
            entries: One per image.
            classes: Number of classes.
            groups: Group of each image of the data set, if it names any.
        """
        found = sorted(entries, key=lambda entry: entry[0])
        columns = [
            np.vstack([np.full(cells.shape[1], place), cells])
            for place, (_, _, cells) in enumerate(found)
        ]
        return cls(
            [name for _, name, _ in found],
            [groups[place] if place < len(groups) else "" for place, _, _ in found],
            classes,
            np.hstack(columns) if columns else np.zeros((3, 0), np.int64),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; the cells are 32-bit integers, compressed and in base64."""
        content = zlib.compress(self.cells.astype("<u4").tobytes(), 9)
        return {
            "names": self.names,
            "groups": self.groups,
            "classes": self.classes,
            "cells": base64.b64encode(content).decode(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ByImage":
        """Read the values of `to_json`.

        Raises:
            ValueError: They are damaged.
        """
        try:
            content = zlib.decompress(base64.b64decode(values["cells"]))
            cells = np.frombuffer(content, "<u4").reshape(3, -1).astype(np.int64)
            single = cls(list(values["names"]), list(values["groups"]), values["classes"], cells)
            single._check_bounds()
            return single
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ValueError(
                f"confusion matrices of single images are damaged ({error}). Run `evaluate` again"
            ) from None

    def _check_bounds(self) -> None:
        if len(self.groups) != len(self.names):
            raise ValueError(f"{len(self.names)} names and {len(self.groups)} groups")
        images, cells, _ = self.cells
        if self.cells.size and (images.max() >= len(self.names) or cells.max() >= self.classes**2):
            raise ValueError("counts of images or classes that are not there")

    def blocks(self, frames: int) -> list[int]:
        """The block of each image: so many consecutive images, which never span two groups.

        Example:
            >>> empty = np.zeros((3, 0), np.int64)
            >>> ByImage(list("abcde"), ["x", "x", "x", "y", "y"], 2, empty).blocks(2)
            [0, 0, 1, 2, 2]
        """
        blocks: list[int] = []
        inside = 0
        for place, group in enumerate(self.groups):
            starts = place == 0 or inside == frames or group != self.groups[place - 1]
            inside = 1 if starts else inside + 1
            blocks.append((blocks[-1] if blocks else -1) + starts)
        return blocks

    def summed(self, blocks: Sequence[int]) -> npt.NDArray[np.int64]:
        """The confusion matrices of blocks of images, flat: `b k²`."""
        count = max(blocks, default=-1) + 1
        images, cells, counts = self.cells
        result = np.zeros((count, self.classes**2), np.int64)
        np.add.at(result, (np.asarray(blocks, np.int64)[images], cells), counts)
        return result
