"""A trained network whose classes are not those of the data: merged, left out, reordered."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segdistill.geometry import Cells, Size, tap_cells
from segdistill.models.contract import SegmentationModel, inner_taps
from segdistill.names import unknown


class Relabelled(SegmentationModel):
    """A network that gives logits of other classes than it was trained on.

    The logit of a class is the log of the sum of the exponentials of its parts, so that the softmax over
    the classes is the network's own with parts summed, left out classes taken away, and the rest scaled
    to sum to 1. A class of one part keeps the network's logit: a mere reordering changes no value.

    Taps are the network's own and read as it made them, but for `logits`; further logits (`aux`) are
    not offered, since they are in the network's classes.

    Args:
        module: The network, with the model contract.
        assigned: For each of its classes the class that it counts as; None leaves it out.
        num_classes: How many classes there are; each has at least one part.
    """

    parts: Tensor

    def __init__(self, module: nn.Module, assigned: Sequence[int | None], num_classes: int) -> None:
        super().__init__()
        own: Any = module
        self.module = module
        self.assigned = list(assigned)
        self.num_classes = num_classes
        self.align_corners, self.multiple_of = own.align_corners, own.multiple_of
        kept = {n: p for n, p in own.taps.items() if not n.startswith(("logits", "aux"))}
        self.taps = {"logits": ""} | inner_taps(kept)
        groups = [[t for t, s in enumerate(assigned) if s == k] for k in range(num_classes)]
        most = max(map(len, groups))
        # Short groups are filled up with a channel behind the last, which has no probability.
        parts = [[*group, *[len(assigned)] * (most - len(group))] for group in groups]
        self.register_buffer("parts", torch.tensor(parts), persistent=False)

    @property
    def in_channels(self) -> int:
        """Channels that the network inside reads."""
        own: Any = self.module
        channels: int = own.in_channels
        return channels

    def cells_of(self, tap: str, size: Size, image: Size) -> Cells:
        return tap_cells(self.module, tap, size, image)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k rows columns"]:
        logits: Tensor = self.module(images)
        if self.parts.shape[1] == 1:
            return logits[:, self.parts[:, 0]]
        nothing = logits.new_full((len(logits), 1, *logits.shape[2:]), float("-inf"))
        return torch.cat([logits, nothing], 1)[:, self.parts].float().logsumexp(2)


def resolve_labels(
    labels: Mapping[Any, Any], classes: Sequence[str], known: Sequence[str] | None = None
) -> list[int | None]:
    """What each of a teacher's classes counts as, by id.

    Args:
        labels: Each of the teacher's classes, by name or id -> a class of the data by name or id, or None.
            Where the teacher's names are not known, names here are taken to stand in its order.
        classes: Names of the data's classes.
        known: Names of the teacher's classes, where they are known.

    Raises:
        ValueError: An unknown class, a class of the teacher that is missing or named twice, or a class
            of the data that nothing stands for.

    Example:
        >>> resolve_labels({"car": "vehicle", "bus": "vehicle", "sky": None}, ["vehicle"])
        [0, 0, None]
    """
    if known is None:
        by_id = all(_is_id(key) for key in labels)
        known = [str(number if by_id else key) for number, key in enumerate(labels)]
    found: dict[int, int | None] = {}
    for key, value in labels.items():
        theirs = _class_id("class of the teacher", key, known)
        if theirs in found:
            raise ValueError(
                f"teacher.labels names the teacher's class {known[theirs]!r} twice: name it once"
            )
        found[theirs] = None if value is None else _class_id("class of the data", value, classes)
    missing = [name for number, name in enumerate(known) if number not in found]
    if missing:
        raise ValueError(
            f"teacher.labels lacks {len(missing)} of the teacher's {len(known)} classes "
            f"({', '.join(missing[:5])}): name each once, with null for those to leave out"
        )
    empty = [name for number, name in enumerate(classes) if number not in found.values()]
    if empty:
        raise ValueError(
            f"teacher.labels: no class of the teacher stands for {', '.join(empty[:5])}, so it would teach "
            "that they never occur: assign one to each, or take them out of the data's mapping"
        )
    return [found[number] for number in range(len(known))]


def _is_id(key: Any) -> bool:
    return isinstance(key, int) and not isinstance(key, bool)


def _class_id(kind: str, key: Any, names: Sequence[str]) -> int:
    if not _is_id(key) and str(key) in names:
        return list(names).index(str(key))
    if _is_id(key) or str(key).isdecimal():
        if 0 <= int(key) < len(names):
            return int(key)
        raise ValueError(
            f"teacher.labels has the id {key}; expected the id of a {kind}, 0 to {len(names) - 1}"
        )
    raise ValueError(f"teacher.labels: {unknown(kind, str(key), names)}")
