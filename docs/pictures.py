"""Draws the pictures of README and site: `python docs/pictures.py [DEMO]`.

The chart shows the committed figures of `benchmarks/results/camvid`. With the folder of a finished
`segdistill demo` the strip of synthetic scenes is drawn again, too.
"""

import json
import sys
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "camvid" / "idd"
NAMES = {"control": "student alone", "cwd": "CWD", "kd": "KD", "idd": "IDD"}
WIDTH, ROW, LEFT, RIGHT, TOP = 720, 44, 130, 30, 56
LOWEST, HIGHEST = 31, 40


def chart() -> str:
    """An SVG of the mIoU of every seed and the mean of each method, from `comparison.json`."""
    methods = json.loads((RESULTS / "comparison.json").read_text())["methods"]
    height = TOP + ROW * len(NAMES) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(16, 24, "CamVid, 101 validation frames: mIoU of a student of 0.67 M parameters", 15),
        _text(16, 43, "dot: one of three seeds; bar: their mean", 12, "#555"),
    ]
    for tick in range(LOWEST, HIGHEST + 1):
        parts.append(
            f'<line x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="{TOP}" y2="{height - 46}" stroke="#ddd"/>'
        )
        parts.append(_text(_x(tick), height - 28, str(tick), 12, "#555", "middle"))
    for row, (key, name) in enumerate(NAMES.items()):
        parts += _row(TOP + ROW * (row + 0.5), name, methods[key])
    teacher = methods["teacher"]["miou_mean"]
    note = (
        f"Teacher: {teacher:.1f} on frames of twice the height and width. "
        "Pole, sign and bicyclist are 0.0 for every student."
    )
    parts += [_text(16, height - 8, note, 12, "#555"), "</svg>"]
    return "\n".join(parts) + "\n"


def _row(y: float, name: str, figures: dict[str, object]) -> list[str]:
    seeds: dict[str, float] = figures["miou_by_seed"]  # type: ignore[assignment]
    mean, spread = float(figures["miou_mean"]), float(figures["miou_sd"])  # type: ignore[arg-type]
    colour = "#888" if name == NAMES["control"] else "#1f6fb4"
    dots = [
        f'<circle cx="{_x(value):.1f}" cy="{y:.1f}" r="5" fill="{colour}" fill-opacity="0.55"/>'
        for value in seeds.values()
    ]
    bar = (
        f'<line x1="{_x(mean):.1f}" x2="{_x(mean):.1f}" y1="{y - 13:.1f}" y2="{y + 13:.1f}" '
        f'stroke="{colour}" stroke-width="3"/>'
    )
    label = _text(LEFT - 12, y + 5, name, 14, "#000", "end")
    figure = _text(_x(HIGHEST) - 4, y + 5, f"{mean:.1f} ± {spread:.1f}", 13, "#000", "end")
    return [label, *dots, bar, figure]


def _x(miou: float) -> float:
    return LEFT + (miou - LOWEST) / (HIGHEST - LOWEST) * (WIDTH - LEFT - RIGHT)


def _text(
    x: float, y: float, text: str, size: int, colour: str = "#000", anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
        f'text-anchor="{anchor}">{text}</text>'
    )


def strip(demo: Path, scenes: int = 3) -> None:
    """Scenes that nobody trained on, as image, label, teacher, control and distilled student."""
    import torch
    from PIL import Image
    from torch.nn import functional as F

    from segdistill import build_dataset, load_predictor

    runs = [load_predictor(demo / name) for name in ("teacher", "supervised-s0", "idd-s0")]
    data = build_dataset("synthetic", split="val", seed=100, count=scenes)
    palette = torch.zeros(256, 3, dtype=torch.uint8)
    palette[: len(data.palette)] = torch.tensor(data.palette, dtype=torch.uint8)
    rows = []
    for number in range(scenes):
        image, label = data.load(number)
        shown = [image.permute(1, 2, 0), palette[label.long()]]
        for run in runs:
            with torch.no_grad():
                logits = run.network.eval()(image[None] / 255)
            corners = bool(getattr(run.network, "align_corners", False))
            full = F.interpolate(logits, label.shape, mode="bilinear", align_corners=corners)
            ids = full.argmax(1)[0]
            shown.append(palette[ids])
        rows.append(torch.cat(shown, 1))
    Image.fromarray(torch.cat(rows).numpy()).save(IMAGES / "scenes.png", optimize=True)


if __name__ == "__main__":
    (IMAGES / "camvid.svg").write_text(chart(), "utf-8")
    if len(sys.argv) > 1:
        strip(Path(sys.argv[1]))
