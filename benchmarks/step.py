"""The full IDD step against teacher forward + student step alone, interleaved in one run.

PSPNet-R101 teaches PSPNet-R18 with the method `idd` (default preset). The reference does the same work
that any distillation must: one teacher forward pass, and the student's forward, cross-entropy, backward and
optimiser step. What is left over is what the distillation terms cost.

    python benchmarks/step.py --out benchmarks/results/step.json
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.models import build_model
from segdistill.run.environment import describe_environment


def build(
    method: str, teacher: torch.nn.Module, images: torch.Tensor
) -> tuple[Distiller, torch.optim.Optimizer]:
    torch.manual_seed(0)
    student = build_model("pspnet_r18", 19).to(images.device)
    # Networks of random weights have nothing to teach in position, so by its rule the term would cost nothing.
    kept = {"position": {"options": {"switch_off": "never"}}} if method == "idd" else None
    distiller = Distiller(student, build_method(method, 19, terms=kept), teacher)
    distiller.dry_pass(images[:, :, :129, :129])
    distiller.prepare([images[:, :, :129, :129]] * 4)
    distiller.to(images.device).train()
    parameters = [p for p in distiller.parameters() if p.requires_grad]
    return distiller, torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=5e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    device = torch.device(a.device)
    torch.manual_seed(0)
    images = torch.rand(a.batch, 3, a.size, a.size, device=device)
    labels = torch.randint(0, 19, (a.batch, a.size // 16, a.size // 16), device=device)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    teacher = build_model("pspnet_r101", 19).to(device).eval()
    plain, plain_optimizer = build(
        "supervised", teacher, images.cpu() if a.device == "cpu" else images
    )
    full, full_optimizer = build("idd", teacher, images)

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
    for repeat in range(a.repeats + 1):
        for name, call in cases.items():
            seconds = timed(call)
            if repeat:
                times[name].append(seconds)
                print(f"{repeat:3d}  {name:32s} {seconds:8.2f} s", flush=True)
    reference, idd = (median(t) for t in times.values())
    paired = median(b / c for c, b in zip(*times.values(), strict=True))
    result = {
        "command": f"python benchmarks/step.py --size {a.size} --batch {a.batch} --repeats {a.repeats}",
        "median_seconds": {"reference": reference, "idd": idd},
        "ratio_of_medians": idd / reference,
        "median_of_paired_ratios": paired,
        "seconds": times,
        "environment": describe_environment(device),
    }
    print(f"idd / reference: {idd / reference:.3f} (medians), {paired:.3f} (median of pairs)")
    if a.out:
        a.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
