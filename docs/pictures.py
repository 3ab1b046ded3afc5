"""Draws the pictures of README and site: `python docs/pictures.py [DEMO]`.

The chart shows the committed figures of `benchmarks/results/camvid-drives`. With the folder of a finished
`segdistill demo` the strip of synthetic scenes is drawn again, too.
"""

import json
import sys
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent / "images"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "camvid-drives" / "table"
NAMES = {
    "inverse": "alone, rare classes up",
    "kd": "KD",
    "cwd": "CWD",
    "hint": "feature regression",
    "idd": "IDD",
    "permuted": "IDD's placebo",
    "idd_plus": "hint + distances",
}
WIDTH, ROW, LEFT, RIGHT, TOP = 720, 38, 180, 110, 62
LOWEST, HIGHEST = -7, 4


def chart() -> str:
    """An SVG of what each row gains over the student alone: every pair, their mean and its interval."""
    content = json.loads((RESULTS / "comparison.json").read_text())
    names = {key: name for key, name in NAMES.items() if key in content["methods"]}
    height = TOP + ROW * len(names) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(
            16,
            24,
            "CamVid, drives that nobody trained on: mIoU minus that of the student alone",
            15,
        ),
        _text(
            16,
            44,
            "dot: same drive, same seed; bar: mean; line: its 95 % interval over seeds",
            12,
            "#555",
        ),
    ]
    for tick in range(LOWEST, HIGHEST + 1):
        colour, sign = ("#888" if tick == 0 else "#ddd"), ("−" if tick < 0 else "+" if tick else "")
        parts.append(
            f'<line x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="{TOP}" y2="{height - 46}" stroke="{colour}"/>'
        )
        parts.append(_text(_x(tick), height - 28, f"{sign}{abs(tick)}", 12, "#555", "middle"))
    for row, (key, name) in enumerate(names.items()):
        parts += _row(TOP + ROW * (row + 0.5), name, content["methods"][key], _gain(content, key))
    control, teacher = (content["methods"][key]["miou_mean"] for key in ("control", "teacher"))
    note = f"Student alone: {control:.1f} mIoU, its teachers {teacher:.1f}, means over both drives."
    parts += [_text(16, height - 8, note, 12, "#555"), "</svg>"]
    return "\n".join(parts) + "\n"


def _gain(content: dict[str, Any], label: str) -> dict[str, float]:
    """Mean and interval of a row minus the control."""
    pairs = [*content["claims"], *content["exploratory"]]
    (found,) = [p for p in pairs if (p["label"], p["reference"]) == (label, "control")]
    gain: dict[str, float] = next(iter(found["on"].values()))
    return gain


def _row(y: float, name: str, figures: dict[str, Any], gain: dict[str, float]) -> list[str]:
    colour = "#1f6fb4" if name == NAMES["idd"] else "#888"
    dots = [
        f'<circle cx="{_x(value):.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" fill-opacity="0.5"/>'
        for value in figures["minus_control"]
    ]
    low, mean, high = (gain[key] for key in ("low", "mean", "high"))
    marks = [
        f'<line x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2"/>',
        f'<line x1="{_x(mean):.1f}" x2="{_x(mean):.1f}" y1="{y - 11:.1f}" y2="{y + 11:.1f}" '
        f'stroke="{colour}" stroke-width="3"/>',
    ]
    sign = {-1: "−", 0: "±", 1: "+"}[(round(mean, 1) > 0) - (round(mean, 1) < 0)]
    figure = f"{sign}{abs(mean):.1f} ± {(high - low) / 2:.1f}"
    label = _text(LEFT - 12, y + 5, name, 14, "#000", "end")
    return [label, *dots, *marks, _text(WIDTH - 12, y + 5, figure, 13, "#000", "end")]


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
