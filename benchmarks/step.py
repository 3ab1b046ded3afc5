"""The full IDD step against teacher forward + student step alone, interleaved in one run.

The method is `idd` (default preset, position kept on). The reference does the same work that any distillation must:
one teacher forward pass, and the student's forward, cross-entropy, backward and optimiser step. What is left over is
what the distillation terms cost.

    python benchmarks/step.py --out benchmarks/results/step.json
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.models import build_model
from segdistill.run.environment import describe_environment


@dataclass(frozen=True)
class Pair:
    """A teacher and its student, at the shapes of their training."""

    teacher: str
    student: str
    classes: int
    batch: int
    size: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)


PAIRS = {
    "cityscapes": Pair("pspnet_r101", "pspnet_r18", 19, 2, (256, 256)),
    "camvid": Pair("espnet", "pspnet:mobilenetv3_small_050", 11, 8, (144, 192), {"head_width": 64}),
}


def build(
    method: str, pair: Pair, teacher: torch.nn.Module, images: torch.Tensor
) -> tuple[Distiller, torch.optim.Optimizer]:
    torch.manual_seed(0)
    student = build_model(pair.student, pair.classes, **pair.options).to(images.device)
    # Networks of random weights have nothing to teach in position, so by its rule the term would cost nothing.
    kept = {"position": {"options": {"switch_off": "never"}}} if method == "idd" else None
    distiller = Distiller(student, build_method(method, pair.classes, terms=kept), teacher)
    few = images[:, :, :129, :129]
    distiller.dry_pass(few)
    distiller.prepare([few] * 4)
    distiller.to(images.device).train()
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    return distiller, torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=5e-4)


def measure(pair: Pair, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds of both steps, in turns; the first of each warms up and does not count."""
    torch.manual_seed(0)
    height, width = pair.size
    images = torch.rand(pair.batch, 3, height, width, device=device)
    labels = torch.randint(0, pair.classes, (pair.batch, height // 16, width // 16), device=device)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    teacher = build_model(pair.teacher, pair.classes).to(device).eval()
    plain, plain_optimizer = build("supervised", pair, teacher, images)
    full, full_optimizer = build("idd", pair, teacher, images)

    def step(distiller: Distiller, optimizer: torch.optim.Optimizer, with_teacher: bool) -> None:
        if with_teacher:
            with torch.no_grad():
                teacher(images)
        distiller.method.total(distiller(images, labels)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def timed(call: Callable[[], None]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    cases = {
        "teacher forward + student step": lambda: step(plain, plain_optimizer, True),
        "idd step": lambda: step(full, full_optimizer, False),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, call in cases.items():
            seconds = timed(call)
            if repeat:
                times[name].append(seconds)
                print(f"{repeat:3d}  {name:32s} {seconds:8.2f} s", flush=True)
    reference, idd = (median(t) for t in times.values())
    paired = median(b / c for c, b in zip(*times.values(), strict=True))
    return {
        "teacher": pair.teacher,
        "student": pair.student,
        "median_of_paired_ratios": paired,
        "ratio_of_medians": idd / reference,
        "median_seconds": {"reference": reference, "idd": idd},
        "seconds": times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", nargs="+", choices=tuple(PAIRS), default=tuple(PAIRS))
    parser.add_argument("--size", type=int, help="side of the crops; default: that of the pair")
    parser.add_argument("--batch", type=int, help="default: that of the pair")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    found = {}
    for name in options.pairs:
        pair = PAIRS[name]
        size = (options.size, options.size) if options.size else pair.size
        pair = replace(pair, size=size, batch=options.batch or pair.batch)
        found[name] = measure(pair, options.repeats, device)
        ratio = found[name]["median_of_paired_ratios"]
        print(f"{name}: idd / reference {ratio:.3f} (median of {options.repeats} pairs)")
    given = " ".join(options.pairs)
    given += "".join(f" --{key} {n}" for key in ("size", "batch") if (n := getattr(options, key)))
    result = {
        "command": f"python benchmarks/step.py --pairs {given} --repeats {options.repeats}",
        "pairs": found,
        "environment": describe_environment(device),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
