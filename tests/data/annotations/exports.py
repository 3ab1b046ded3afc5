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


def labelme(root: Path, name: str, shapes: Sequence[Any], **more: Any) -> Path:
    """An image of 16x12 and its JSON beside it; returns the JSON."""
    save_image(root / f"{name}.png")
    size = {"imageWidth": 16, "imageHeight": 12, "imagePath": f"{name}.png"}
    path = root / f"{name}.json"
    path.write_text(json.dumps({"version": "5.5.0", "shapes": shapes, **size, **more}))
    return path


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> Any:
    """One shape of labelme."""
    return {"label": label, "points": points, "shape_type": kind, **more}


def yolo(root: Path, texts: dict[str, str | None], names: Any = ("road", "car")) -> Path:
    """`images` and `labels` with a text file for each name, None for no file, and `data.yaml`."""
    for value, (name, text) in enumerate(texts.items()):
        save_image(root / "images" / f"{name}.png", value=value)
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            (root / "labels" / f"{name}.txt").write_text(text)
    if names is not None:
        content = {"names": list(names) if isinstance(names, tuple) else names}
        (root / "data.yaml").write_text(json.dumps(content))
    return root
