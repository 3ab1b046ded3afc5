"""Rows of metrics.jsonl: one JSON mapping per line."""

import json
import logging
from pathlib import Path
from typing import Any

from segdistill.run.contents.files import read_file
from segdistill.run.contents.shapes import (
    CONTENT,
    listed,
    mapping,
    maybe,
    number,
    plain,
    record,
    text,
    whole,
)

_log = logging.getLogger(__name__)
_any_number = maybe(number(finite=False))
_figure = maybe(number(0, 1))
_SHAPE = record(
    {"step": whole()},
    {
        "kind": text,
        "total": _any_number,
        "lr": _any_number,
        "terms": mapping(record({}, dict.fromkeys(("value", "weight", "share"), _any_number))),
        "kept": mapping(listed(_figure)),
        "skipped": whole(),
        "overflowed": whole(),
        "seconds_per_step": number(0),
        "data_seconds": number(0),
        **dict.fromkeys(("miou", "pixel_accuracy", "teacher_miou", "teacher_agreement"), _figure),
        **dict.fromkeys(("iou", "teacher_iou"), listed(_figure)),
        "term": plain,
    },
)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file, without damaged ones; warns if others than the last are damaged.

    A kill damages at most the last line.

    Raises:
        Damaged: There is something else than a file at this path.
    """
    content = read_file(path)
    if content is None:
        return []
    rows, damaged = [], []
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    for number_, line in enumerate(lines, 1):
        row = _row(line)
        if row is None:
            damaged.append(number_)
        else:
            rows.append(row)
    if damaged and damaged != [len(lines)]:
        more = "" if len(damaged) <= _SHOWN else f" and {len(damaged) - _SHOWN} more"
        _log.warning(
            "%s: skipped damaged line %s%s", path, ", ".join(map(str, damaged[:_SHOWN])), more
        )
    return rows


_SHOWN = 5


def _row(line: str) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return None if _SHAPE(row, CONTENT) else row
