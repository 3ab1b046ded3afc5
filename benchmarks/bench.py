"""All ratios, in under a quarter of an hour: runs the short form of each benchmark and prints its command and result.

    make bench
    python benchmarks/bench.py --out benchmarks/results   # also writes their JSON files

What needs data that is not there is named and left out.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CAMVID, CITYSCAPES = "data/camvid", "data/samples/cityscapes"
ESPNET = "data/weights/espnet_p2_q8_camvid.safetensors"
CASES: list[tuple[str, list[str], list[str]]] = [
    ("evaluation", ["--images", "2", "--repeats", "3"], []),
    ("loop", ["--data", CAMVID, "--weights", ESPNET, "--rounds", "3"], [CAMVID, ESPNET]),
    ("step", ["--repeats", "9"], []),
    (
        "losses",
        [
            "--losses",
            "class_tokens",
            "token_distances",
            "inter_class",
            "position",
            "--repeats",
            "3",
        ],
        [],
    ),
    ("start", ["--data", CAMVID, "--weights", ESPNET, "--steps", "10"], [CAMVID, ESPNET]),
    ("data", ["--data", CITYSCAPES], [CITYSCAPES]),
]
"""Name, arguments and files that are read."""


def main(arguments: list[str] | None = None) -> int:
    """Run them one after the other, each on one thread; 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for the JSON files")
    options = parser.parse_args(arguments)
    begun, failed = time.perf_counter(), []
    for name, given, needed in CASES:
        missing = [path for path in needed if not Path(path).exists()]
        if missing:
            print(f"\n# {name}.py is left out: there is no {', '.join(missing)}", flush=True)
            continue
        out = ["--out", str(options.out / f"{name}.json")] if options.out else []
        command = [str(HERE.relative_to(Path.cwd()) / f"{name}.py"), *given]
        print(f"\n# OMP_NUM_THREADS=1 python {' '.join(command)}", flush=True)
        done = subprocess.run(
            [sys.executable, *command, *out], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        failed += [name] * (done.returncode != 0)
    print(f"\n{(time.perf_counter() - begun) / 60:.1f} minutes", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
