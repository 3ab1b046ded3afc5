"""Print what was tried against trainings and their files, and how often they survived.

python -m tests.reliability                all of it, in about an hour on one core
python -m tests.reliability --every 10     every tenth operation only
"""

import argparse
import logging
import os
import sys
import tempfile
from collections import defaultdict
from itertools import chain
from pathlib import Path

import torch

from tests.reliability import trials


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try every n-th only")
    parser.add_argument("--trainings", nargs="+", default=trials.TRAININGS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    table: dict[tuple[str, str], list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        # Neither digests nor trusted modules of the user's own take part.
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = f"{folder}/home"
        for name in options.trainings:
            training = trials.Training(name, Path(folder, name.replace(" ", "-").replace(":", "-")))
            every = chain(trials.every_break(training), trials.every_damage(training))
            for trial in trials.sampled(every, options.every):
                table[name, trial.kind].append(trial.fault and f"{trial.what}: {trial.fault}")
    print(f"{'training':24} {'what is done to it':22} {'tries':>6} {'survived':>9}")
    for (name, kind), faults in table.items():
        print(f"{name:24} {kind:22} {len(faults):6} {faults.count(''):9}")
    wrong = [(*key, fault) for key, faults in table.items() for fault in faults if fault]
    for line in wrong:
        print("  ".join(line))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
