"""Made-up runs and a made-up report, for tests of reports."""

from dataclasses import replace

import numpy as np

from segdistill.config import DataConfig, ModelConfig, Recipe, TrainConfig
from segdistill.run.reporting.findings import Distances, Findings, Panel, PositionMasks
from segdistill.run.reporting.page import Report
from segdistill.run.reporting.summary import RunSummary

CLASSES = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
]
PALETTE = [
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
]  # fmt: skip
TERMS = {
    "control": {"cross_entropy": 1.0},
    "kd": {"cross_entropy": 1.0, "pixelwise": 1.0},
    "idd": {"cross_entropy": 1.0, "channelwise": 3.0, "inter_class": 1.0, "position": 0.2},
}


def run(label, seed=0, gain=0.0, steps=1000, **changes):
    """A made-up run whose mIoU is 0.62 + gain, with curves, classes and a profile."""
    noise = np.random.default_rng([seed, sum(map(ord, label))])
    role = label if label in ("teacher", "control") else "method"
    iou = np.linspace(0.9, 0.3, 11) + gain * np.linspace(0.2, 1.8, 11)
    miou = 0.62 + gain
    iou = np.clip(iou + miou - iou.mean(), 0.02, 0.98)
    slower = 1.0 if role != "method" else 2.1
    rows = []
    for step in range(50, steps + 1, 50):
        done = step / steps
        terms = {
            name: {
                "value": weight * (0.3 + 2 * np.exp(-4 * done)) * (1 + 0.05 * noise.normal()),
                "weight": weight,
                "share": 1.0 if name == "cross_entropy" else 0.3 * (1 + 0.1 * noise.normal()),
            }
            for name, weight in TERMS.get(label, TERMS["control"]).items()
        }
        rows.append(
            {
                "kind": "train",
                "step": step,
                "lr": 0.01,
                "terms": terms,
                "seconds_per_step": 0.08 * slower,
            }
        )
        if step % 100 == 0:
            value = miou * (1 - np.exp(-5 * done)) / (1 - np.exp(-5)) + 0.004 * noise.normal() * (
                done < 1
            )
            rows.append({"kind": "val", "step": step, "miou": value, "pixel_accuracy": 0.9})
    evaluation = {
        "miou": miou,
        "iou": iou.tolist(),
        "pixel_accuracy": 0.88 + gain / 4,
        "classes_counted": 11,
        "images": 101,
        "confusion": np.diag(np.arange(11, 0, -1) ** 3).tolist(),
    }
    profile = {
        "parameters": 40_000_000 if role == "teacher" else 3_271_686,
        "multiply_adds": 12.4e9 if role == "teacher" else 1.57e9,
        "latency_ms_median": 310.2 if role == "teacher" else 41.6,
        "size": [360, 480],
        "threads": 1,
        "device": "cpu",
    }
    preparation = (
        {"position": {"r2_teacher_x": 0.41, "r2_teacher_y": 0.83}} if label == "idd" else {}
    )
    recipe = Recipe(
        DataConfig("camvid", size=(360, 480)),
        ModelConfig("pspnet_r18_half"),
        method=label,
        train=TrainConfig(steps=steps, seed=seed),
    )
    environment = {
        "python": "3.11.7",
        "torch": "2.15.0",
        "machine": {"cpu": "x86_64", "threads": 1},
    }
    summary = RunSummary(
        f"{label}-s{seed}",
        label,
        role,
        seed,
        rows,
        evaluation,
        profile,
        preparation,
        recipe,
        environment,
    )
    return replace(summary, **changes)


def three_seeds():
    """Teacher, control and two methods: idd gains +2.8, +3.5, +3.0 over the control, kd about 0."""
    base = {0: 0.0, 1: 0.012, 2: -0.006}
    gains = {
        "control": {0: 0.0, 1: 0.0, 2: 0.0},
        "kd": {0: 0.012, 1: -0.004, 2: 0.009},
        "idd": {0: 0.028, 1: 0.035, 2: 0.030},
    }
    runs = [run("teacher", 0, 0.12, steps=3000)]
    return runs + [
        run(name, seed, base[seed] + gain)
        for name, by in gains.items()
        for seed, gain in by.items()
    ]


def scene(seed, h=90, w=120):
    """A noisy image and its label: sky over buildings over road, with a pole."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    label = np.where(y < 30 + 4 * np.sin(x / 17 + seed), 0, 1)
    label = np.where(y > 58 + 3 * np.cos(x / 23 + seed), 3, label)
    label = np.where((y > 55) & (np.abs(x - 90 + seed * 7) < 14) & (y < 76), 8, label)
    label = np.where((np.abs(x - 30 - 5 * seed) < 2) & (y > 14) & (y < 66), 2, label)
    label = np.where((np.hypot(x - 31 - 5 * seed, y - 16) < 6), 6, label)
    label = np.where((np.hypot(x - 60, y - 40 - seed) < 13), 5, label)
    image = np.asarray(PALETTE)[label] * 0.6 + 60 + noise.normal(0, 12, (h, w, 3))
    label = label.copy()
    label[-4:] = 255
    return np.clip(image, 0, 255).astype(np.uint8), label


def worsened(label, amount, seed):
    noise = np.random.default_rng(seed)
    seen = np.where(label == 255, 3, label)
    for _ in range(amount):
        y, x = noise.integers(0, 80), noise.integers(0, 110)
        seen = seen.copy()
        seen[y : y + 10, x : x + 10] = seen[max(y - 12, 0), x]
    return seen


def distances(seed, bend=0.0):
    noise = np.random.default_rng(1)
    tokens = noise.normal(size=(11, 6)) + bend * np.random.default_rng(seed).normal(size=(11, 6))
    table = np.linalg.norm(tokens[:, None] - tokens[None], axis=-1)
    table[7] = table[:, 7] = np.nan
    return table


def full_findings(**changes):
    panels = []
    for seed in range(4):
        image, label = scene(seed)
        seen = {
            "teacher": worsened(label, 4, seed),
            "control": worsened(label, 26, seed),
            "idd": worsened(label, 11, seed),
        }
        panels.append(Panel(f"0016E5_{7959 + 2 * seed:05d}", image, label, seen))
    y, x = np.mgrid[0:30, 0:40]
    ramps = np.stack([(x + 1) / 41, (y + 1) / 31])
    noise = np.random.default_rng(3).normal(size=(2, 30, 40))
    findings = Findings(
        panels,
        "The 4 of 101 validation images on which control and idd disagree on the "
        "most pixels, regardless of which is right. Seed 0.",
        [
            Distances("teacher", distances(1), 0.61),
            Distances("control", 3 * distances(2, 0.8), 1.42),
            Distances("idd", 2 * distances(3, 0.25), 0.83),
        ],
        "Tap features, mean over 101 validation images, seed 0.",
        [
            PositionMasks(
                "0016E5_07959",
                ramps,
                {
                    "teacher": np.clip(ramps + 0.08 * noise, 0, 1),
                    "control": np.clip(0.5 + 0.4 * (ramps - 0.5) + 0.14 * noise, 0, 1),
                    "idd": np.clip(ramps + 0.12 * noise, 0, 1),
                },
                {"teacher": (0.41, 0.83), "control": (0.12, 0.44), "idd": (0.35, 0.76)},
            )
        ],
    )
    return replace(findings, **changes)


def full_report(**changes):
    report = Report(
        three_seeds(),
        CLASSES,
        PALETTE,
        full_findings(),
        title="segdistill: camvid, pspnet_r18_half",
        made="17 March 2026, segdistill 0.1.0",
        notes=[
            "The validation images are one clip of 6.7 s from a drive that is also trained on: "
            "they read far above an unseen drive."
        ],
    )
    return replace(report, **changes)
