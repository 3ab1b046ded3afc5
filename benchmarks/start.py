"""What hashing and audits add to the start of a training, and guards to a step.

A student is distilled on CamVid twice, each time in a fresh process: first with nothing remembered, then with the
digests of the first start. Calls are timed from inside; the start is all the time before the first step,
and a guard's share is its time over that of all steps.

    python benchmarks/start.py --data data/camvid --weights data/weights/espnet_p2_q8_camvid.safetensors \
        --out benchmarks/results/start.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

AUDITS = {
    "identity": ("segdistill.run.training.job", "Job", "identity"),
    "orientation": ("segdistill.run.training.train", "", "refuse_unclear_orientation"),
    "masks": ("segdistill.run.training.train", "", "_check_masks"),
    "pixels": ("segdistill.run.training.train", "", "_check_pixels"),
    "outputs": ("segdistill.run.training.train", "", "_check_outputs"),
    "shared files": ("segdistill.run.training.train", "", "_check_shared"),
}
GUARDS = {
    "heartbeat": ("segdistill.run.training.loop", "", "get_on"),
    "finite terms": ("segdistill.run.training.loop", "Loop", "_check_finite"),
    "finite gradient": ("segdistill.run.training.loop", "Loop", "_check_gradient"),
    "requests": ("segdistill.run.training.loop", "Loop", "_heed"),
}


def timed(call: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """The call, whose time is added up under a name."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - start

    return run


def watch(places: dict[str, tuple[str, str, str]], spent: dict[str, float]) -> None:
    """Time the functions, methods and cached properties at these places."""
    import importlib
    from functools import cached_property

    for name, (module, owner, attribute) in places.items():
        holder = importlib.import_module(module)
        holder = getattr(holder, owner) if owner else holder
        found = vars(holder)[attribute]
        if isinstance(found, cached_property):
            call = cached_property(timed(found.func, spent, name))
            call.__set_name__(holder, attribute)
            setattr(holder, attribute, call)
        else:
            setattr(holder, attribute, timed(found, spent, name))


def measure(data: str, weights: str, steps: int, out: Path) -> dict[str, Any]:
    """One training: seconds of each audit and of the start, and the share of each guard in a step."""
    from segdistill import config
    from segdistill.run.training import loop
    from segdistill.run.training.train import train

    spent: dict[str, float] = defaultdict(float)
    watch({**AUDITS, **GUARDS}, spent)
    recipe = config.Recipe(
        data=config.DataConfig("camvid", data, size=(180, 240)),
        teacher=config.TeacherConfig(model="espnet", weights=weights),
        student=config.ModelConfig("pspnet:mobilenetv3_small_050", options={"head_width": 64}),
        method="idd",
        train=config.TrainConfig(steps=steps, crop=(144, 192), log_every=steps),
        out=str(out),
    )
    begun = time.perf_counter()
    started: list[float] = []
    restore = loop.Loop.restore

    def note(self: loop.Loop) -> bool:
        started.append(time.perf_counter() - begun)
        for name in GUARDS:
            spent[name] = 0.0
        return restore(self)

    loop.Loop.restore = note  # type: ignore[method-assign]
    train(recipe, progress=False)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = steps * next(row["seconds_per_step"] for row in rows if row["kind"] == "train")
    audits = {name: spent[name] for name in AUDITS}
    return {
        "start_seconds": started[0],
        "audit_seconds": audits,
        "audits_seconds": sum(audits.values()),
        "guard_share": {name: spent[name] / seconds for name in GUARDS},
        "guards_share": sum(spent[name] for name in GUARDS) / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        found = measure(options.data, options.weights, options.steps, options.once)
        print(json.dumps(found))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *sys.argv, "--once"]
        for name in ("first", "remembered"):
            done = subprocess.run(
                [*command, f"{folder}/{name}"],
                env={**os.environ, "XDG_CACHE_HOME": folder},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, json.dumps(rows[name], indent=1), flush=True)
    if options.out:
        import torch

        from segdistill.run.environment import describe_environment

        environment = describe_environment(torch.device("cpu"))
        options.out.write_text(
            json.dumps({"starts": rows, "environment": environment}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
