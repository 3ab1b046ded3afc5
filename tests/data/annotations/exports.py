"""Small exports of annotation tools, written for the tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.data.files import save_image

SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]
CATEGORIES = [{"id": 7, "name": "road"}, {"id": 3, "name": "car"}]


def annotation(key: int, segmentation: Any, category: int = 3, image: int = 1, **more: Any) -> Any:
    """One annotation of a COCO file."""
    values = {"id": key, "image_id": image, "category_id": category, "segmentation": segmentation}
    return {**values, **more}


def coco(
    root: Path,
    annotations: Sequence[Any] = (),
    *,
    images: Sequence[str] = ("a.png",),
    categories: Sequence[Any] = CATEGORIES,
    size: tuple[int, int] = (16, 12),
    value: int = 0,
) -> Path:
    """`train/_annotations.coco.json` with its images; returns the file."""
    (root / "train").mkdir(parents=True, exist_ok=True)
    listed = []
    for number, name in enumerate(images, 1):
        save_image(root / "train" / name, size[1], size[0], value=value + number)
        entry = {"id": number, "file_name": name, "width": size[0], "height": size[1]}
        listed.append(entry)
    content = {"images": listed, "categories": categories, "annotations": annotations}
    path = root / "train/_annotations.coco.json"
    path.write_text(json.dumps(content))
    return path
