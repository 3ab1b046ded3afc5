"""Weights from measured gradient shares: the procedure behind the catalogue's `default` weights.

Reads finished or running runs of the `idd` method. A term's share is the norm of its weighted gradient at
the last weight that all terms share, relative to the task term's, from metrics.jsonl. The
weight that would have given the target share is weight * target / median(share over steps 5 to 10 %).

    python benchmarks/weights.py runs/camvid/idd-s0 runs/demo/idd-s0
"""

import argparse
import json
from pathlib import Path
from statistics import median

import yaml

# Start shares relative to cross-entropy: strong terms on the logits, auxiliaries on the features.
TARGETS = {
    "pixelwise": 1.0,
    "channelwise": 1.0,
    "pairwise": 0.1,
    "inter_class": 0.2,
    "position": 0.1,
}


def suggestions(run: Path, first: float, last: float) -> dict[str, dict[str, float]]:
    """Measured share and suggested weight of each term of one run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    total = yaml.safe_load((run / "config.yaml").read_text())["train"]["steps"]
    window = [
        r for r in rows if r["kind"] == "train" and first * total <= r["step"] <= last * total
    ]
    result = {}
    for name, target in TARGETS.items():
        of_term = [row["terms"][name] for row in window if name in row["terms"]]
        terms = [term for term in of_term if term["share"] is not None]
        share = median([term["share"] for term in terms] or [0])
        if share:
            weight = terms[0]["weight"]
            result[name] = {"weight": weight, "share": share, "suggested": weight * target / share}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--first", type=float, default=0.05)
    parser.add_argument("--last", type=float, default=0.10)
    arguments = parser.parse_args()
    for run in arguments.runs:
        print(run)
        found = suggestions(run, arguments.first, arguments.last)
        if not found:
            print(f"  no share from {arguments.first:.0%} to {arguments.last:.0%} of its steps")
        for name, figures in found.items():
            print(
                f"  {name:12s} weight {figures['weight']:8.4g}  share {figures['share']:7.3f}  "
                f"target {TARGETS[name]:.1f}  suggests {figures['suggested']:8.4g}"
            )


if __name__ == "__main__":
    main()
