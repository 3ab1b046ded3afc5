"""Everything that only a GPU can show, by one command that writes one JSON.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --quick    # a rehearsal of a few steps, which shows nothing

Parts, each of which can be named with `--parts`; one that fails is recorded with its error, and the others go on:

- `losses`: value and gradient of every loss in every form, GPU against CPU, in float32 without TF32.
- `determinism`: the demo's student trained twice with `train.deterministic`; are the weights equal to the bit?
- `precision`: the same training in float32, bf16 and fp16: mIoU, time of a step, peak memory.
- `step`: the whole step of `idd` against teacher forward + student step (`benchmarks/step.py`).
- `processes`: the training in one process and in two, which needs two GPUs.
- `camvid`: the recipes of `recipes/camvid`, teacher and comparison, where `data/camvid` exists.
"""

import argparse
import inspect
import json
import math
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from segdistill.config import Recipe, to_dict
from segdistill.losses import LOSSES
from segdistill.run.compare import compare
from segdistill.run.environment import describe_environment
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import load_recipe
from segdistill.run.training.train import train

ROOT = Path(__file__).parents[1]
CLASSES, SIZE = 7, 17
# Losses whose student is compared with the teacher as it is, and those without a teacher, read logits.
STUDENT_WIDTH, TEACHER_WIDTH = 16, 32


class Setting:
    """Where and how long to measure.

    Args:
        device: Device to measure.
        quick: A few steps only.
        folder: Folder for runs.
    """

    def __init__(self, device: str, quick: bool, folder: Path) -> None:
        self.device, self.quick, self.folder = device, quick, folder

    def demo(self, which: str, out: str, *changes: str) -> Recipe:
        """A recipe of the demo on this device; `which` is `teacher` or `idd`."""
        words = [f"--train.device={self.device}", f"--out={self.folder / out}", *changes]
        if which == "idd":
            words.append(f"--teacher.run={self.folder / 'teacher'}")
        if self.quick:
            words += ["--train.steps=4", "--train.warmup=1", "--data.options={count: 8, seed: 100}"]
            words += ["--teacher.min_miou=0"] if which == "idd" else []
        return load_recipe(ROOT / "recipes" / "synthetic" / f"{which}.yaml", words)

    def teacher(self) -> RunFolder:
        """The demo's teacher, trained on this device; a finished one is handed back."""
        return train(self.demo("teacher", "teacher"), progress=False)


def losses(setting: Setting) -> dict[str, Any]:
    """Every form on both devices; differences are relative to the largest magnitude on the CPU."""
    rows = {}
    with without_tf32():
        for name, loss in LOSSES.items():
            for form in loss.forms:
                rows[f"{name}:{form}"] = _differences(name, form, setting.device)
    # What is not finite is the worst.
    worst = max(rows, key=lambda name: (not rows[name]["finite"], rows[name]["largest"]))
    return {"worst": worst, "forms": rows}


def _differences(name: str, form: str, device: str) -> dict[str, Any]:
    value, gradient = value_and_gradient(name, form, "cpu")
    other, others = value_and_gradient(name, form, device)
    value_off = abs(other - value) / (abs(value) or 1.0)
    gradient_off = float((others - gradient).abs().max()) / (float(gradient.abs().max()) or 1.0)
    return {
        "value": value,
        "value_off": value_off,
        "gradient_off": gradient_off,
        "largest": max(value_off, gradient_off),
        "finite": math.isfinite(value_off) and math.isfinite(gradient_off),
    }


@contextmanager
def without_tf32() -> Iterator[None]:
    """Matrix products and convolutions in whole float32 while this lasts."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def value_and_gradient(name: str, form: str, device: str) -> tuple[float, Tensor]:
    """A loss and its gradient to the student, on the CPU, from weights and inputs that depend on nothing else."""
    torch.manual_seed(0)
    kind = LOSSES[name]
    compares = kind.matches_channels and not kind.projects
    known = inspect.signature(kind.forward).parameters
    widths = (
        (CLASSES, CLASSES) if compares or "teacher" not in known else (STUDENT_WIDTH, TEACHER_WIDTH)
    )
    student, teacher = (torch.randn(2, width, SIZE, SIZE) for width in widths)
    pixels = 8 * (SIZE - 1)
    blocks = torch.randint(0, CLASSES, (2, 1, 4, 4)).float()
    labels = torch.nn.functional.interpolate(blocks, (pixels, pixels))[:, 0].long()
    images = torch.rand(2, 3, pixels, pixels)
    options = {"form": form, "steps": 1}
    accepted = inspect.signature(kind).parameters
    loss = kind(**{key: value for key, value in options.items() if key in accepted})
    loss.build(student.shape, teacher.shape)
    loss.prepare([(student, teacher)])
    loss.to(device).train()
    student = student.to(device).requires_grad_()
    given = {"student": student, "teacher": teacher, "labels": labels, "images": images}
    moved = {
        key: tensor if key == "student" else tensor.to(device) for key, tensor in given.items()
    }
    torch.manual_seed(1)
    value = loss(**{key: moved[key] for key in known if key in moved})
    value.backward()
    assert student.grad is not None
    return float(value.detach()), student.grad.cpu()


def determinism(setting: Setting) -> dict[str, Any]:
    """Two trainings that allow only deterministic operations."""
    setting.teacher()
    found = []
    for number in (1, 2):
        recipe = setting.demo("idd", f"deterministic-{number}", "--train.deterministic=true")
        found.append(load_file(train(recipe, progress=False).weights_path()))
    one, other = found
    apart = [name for name in one if not torch.equal(one[name], other[name])]
    return {"equal": not apart, "tensors": len(one), "tensors_apart": apart}


def precision(setting: Setting) -> dict[str, Any]:
    """The same training in each precision that the device has."""
    setting.teacher()
    known = ["32", "bf16", "fp16"] if setting.device == "cuda" else ["32", "bf16"]
    return {
        name: _trained(setting, f"precision-{name}", f"--train.precision={name}") for name in known
    }


def _trained(setting: Setting, out: str, *changes: str) -> dict[str, Any]:
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run = train(setting.demo("idd", out, *changes), progress=False)
    rows = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    times = [row["seconds_per_step"] for row in rows if row.get("kind") == "train"]
    found = {"miou": (run.evaluation() or {})["miou"]}
    if times:
        found["seconds_per_step"] = statistics.median(times)
    if setting.device == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def step(setting: Setting) -> dict[str, Any]:
    """The benchmark of the step, in a process of its own."""
    out = setting.folder / "step.json"
    words = ["--device", setting.device, "--pairs", "cityscapes", "--out", str(out)]
    words += (
        ["--size", "144", "--repeats", "1"] if setting.quick else ["--size", "512", "--batch", "8"]
    )
    _called(sys.executable, str(ROOT / "benchmarks" / "step.py"), *words)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def processes(setting: Setting) -> dict[str, Any]:
    """One process and two, of the same recipe; batch norm is synchronised over processes."""
    if setting.device == "cuda" and torch.cuda.device_count() < 2:
        return {"skipped": f"{torch.cuda.device_count()} GPU is there; expected 2"}
    setting.teacher()
    found = {"1": _trained(setting, "processes-1")["miou"]}
    recipe = setting.folder / "two.yaml"
    recipe.write_text(yaml.safe_dump(to_dict(setting.demo("idd", "processes-2"))))
    launcher = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    )
    _called(*launcher, "-m", "segdistill", "train", str(recipe))
    found["2"] = (RunFolder(setting.folder / "processes-2").evaluation() or {})["miou"]
    return found


def camvid(setting: Setting) -> dict[str, Any]:
    """The recipes that the docs report from a CPU: one seed of each row."""
    data = ROOT / "data" / "camvid"
    if not data.is_dir():
        return {"skipped": f"{data} is not there"}
    words = [f"--train.device={setting.device}", f"--data.root={data}"]
    words += ["--train.steps=2", "--train.warmup=1"] if setting.quick else []
    folder = ROOT / "recipes" / "camvid"
    teacher = train(
        load_recipe(
            folder / "teacher.yaml", [*words, f"--out={setting.folder / 'camvid-teacher'}"]
        ),
        progress=False,
    )
    words += [f"--teacher.run={teacher.path}", f"--out={setting.folder / 'camvid'}"]
    words += ["--teacher.min_miou=0"] if setting.quick else []
    rows = compare(load_recipe(folder / "idd.yaml", words), seeds=1, progress=False)
    return {row.label: (row.evaluation or {}).get("miou") for row in rows}


PARTS: Mapping[str, Callable[[Setting], dict[str, Any]]] = {
    part.__name__: part for part in (losses, determinism, precision, step, processes, camvid)
}


def measured(
    parts: Mapping[str, Callable[[Setting], dict[str, Any]]],
    setting: Setting,
    keep: Callable[[dict[str, Any]], object],
) -> dict[str, Any]:
    """What each part finds, or its error; `keep` is called after each with all that is known."""
    found: dict[str, Any] = {}
    for name, part in parts.items():
        print(f"{name} ..", flush=True)
        try:
            found[name] = part(setting)
        except Exception as error:  # the other parts are worth their time all the same
            traceback.print_exc()
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        keep(found)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write the JSON; 1 where a part failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--quick", action="store_true", help="a few steps only")
    parser.add_argument("--out", type=Path, help="file to write")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no GPU; expected one, or --device cpu")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "command": "python benchmarks/gpu.py " + " ".join(arguments or sys.argv[1:]),
        "quick": options.quick,
        "environment": describe_environment(torch.device(options.device)),
    }

    def keep(found: dict[str, Any]) -> None:
        if options.out:
            options.out.write_text(json.dumps({**result, "parts": found}, indent=1) + "\n")

    with TemporaryDirectory() as folder:
        setting = Setting(options.device, options.quick, Path(folder))
        parts = measured({name: PARTS[name] for name in options.parts}, setting, keep)
    print(json.dumps({**result, "parts": parts}, indent=1))
    return int(any("error" in part for part in parts.values()))


def _called(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
