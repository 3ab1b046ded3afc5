"""What a training adds to its own computing: the loop of `segdistill train` beside a bare one.

The bare loop goes on with the training's own networks, terms and optimiser, on one batch in memory: forward passes of
teacher and student, terms, backward pass, step. What the training does besides is to read, augment, check and log.
The two take turns, in rounds of as many steps. The first logged steps of a training warm it up and do not count.

    OMP_NUM_THREADS=1 python benchmarks/loop.py --data data/camvid \
        --weights data/weights/espnet_p2_q8_camvid.safetensors --out benchmarks/results/loop.json

Without --data the images are drawn, and the teacher is a network of random weights.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from segdistill.run.environment import describe_environment
from segdistill.run.recipe import parse_recipe
from segdistill.run.training.loop import Loop
from segdistill.run.training.train import train

LOGGED = 20


class _Measured(Exception):
    """Both loops are timed."""


def values(data: str | None, weights: str | None, method: str, rounds: int) -> dict[str, Any]:
    """The recipe: the pair of CamVid's recipes, in float32."""
    camvid = {"name": "camvid", "root": data, "size": [180, 240], "options": {"cache": True}}
    drawn = {"name": "synthetic", "options": {"size": [180, 240], "count": 64}}
    given = {"weights": weights, "min_miou": 0.0} if weights else {"random": True}
    return {
        "data": camvid if data else drawn,
        "teacher": {"model": "espnet", **given},
        "student": {"model": "pspnet:mobilenetv3_small_050", "options": {"head_width": 64}},
        "method": method,
        "train": {
            "steps": LOGGED * (rounds + 1),
            "batch": 8,
            "crop": [144, 192],
            "photometric": 0.3,
            "optimizer": "adamw",
            "lr": 0.001,
            "log_every": LOGGED,
            "channels_last": True,
            "device": "cpu",
        },
    }


def bare(loop: Loop, steps: int) -> float:
    """Seconds per step of the bare loop."""
    part = loop._parts(next(iter(loop.loader(0))))[0]
    begun = time.perf_counter()
    for _ in range(steps):
        loop.distiller.method.total(loop.distiller(*part)).backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - begun) / steps


def measured(recipe: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds per step of both loops in each round."""
    seconds: dict[str, list[float]] = {"train": [], "bare": []}
    validate, begin = Loop._validate, Loop.run
    clock = [0.0]

    def between(self: Loop, *arguments: Any, **named: Any) -> bool:
        if self.step % LOGGED or len(seconds["train"]) == rounds:
            return validate(self, *arguments, **named)
        if self.step > LOGGED:
            seconds["train"].append((time.perf_counter() - clock[0]) / LOGGED)
            seconds["bare"].append(bare(self, LOGGED))
        clock[0] = time.perf_counter()
        return True

    def run(self: Loop, progress: bool = True) -> None:
        begin(self, progress)
        raise _Measured

    Loop._validate, Loop.run = between, run  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(parse_recipe({**recipe, "out": f"{folder}/run"}), progress=False)
    except _Measured:
        pass
    finally:
        Loop._validate, Loop.run = validate, begin  # type: ignore[method-assign]
    assert len(seconds["train"]) == rounds
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of CamVid; default: drawn images")
    parser.add_argument("--weights", help="of the teacher, an ESPNet; default: random ones")
    parser.add_argument("--method", default="idd")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recipe = values(options.data, options.weights, options.method, options.rounds)
    seconds = measured(recipe, options.rounds)
    share = median(b / t for t, b in zip(seconds["train"], seconds["bare"], strict=True))
    print(
        f"{options.method}: {median(seconds['train']):.3f} s a step, bare {median(seconds['bare']):.3f} s; "
        f"the loop reaches {share:.3f} of the bare one's rate (median of {options.rounds} rounds)"
    )
    if options.out:
        given = [
            f"--{name} {value}" for name in ("data", "weights") if (value := getattr(options, name))
        ]
        command = " ".join(["python benchmarks/loop.py", *given, f"--method {options.method}"])
        result = {
            "command": f"{command} --rounds {options.rounds}",
            "rate_of_bare_loop": share,
            "seconds_per_step": seconds,
            "environment": describe_environment(torch.device("cpu")),
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
