"""One table of a benchmark: teachers, tuning, then all rows, seed by seed; the same command goes on.

A protocol is a folder with `table.yaml`, whose rows are compared, and `teachers/NAME.yaml`, which are trained first.
Runs lie in `runs/PROTOCOL`. After each step their records, without weights, are copied to
`benchmarks/results/PROTOCOL`; records that are there already take the place of trainings.

    python benchmarks/table.py synthetic --trials 5 --seeds 10
    python benchmarks/table.py camvid-drives --trials 5 --seeds 5 --rows control kd idd
    python benchmarks/table.py camvid-drives --trials 5 --seeds 5 --rows control idd --budget time

Two checkouts can share the work, by `--rows` while tuning and by `--folds` of the table. Once their records lie in one
checkout, the command without these options makes what is made of all of them.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segdistill.run.compare import compare
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import load_recipe
from segdistill.run.training.train import train
from segdistill.run.tuning.tune import tune

HERE = Path(__file__).parent
RESULTS = HERE / "results"
_TABLES = {"steps": "table", "time": "table-time"}
_STAGES = ("tuning", *_TABLES.values())
_WEIGHTS = shutil.ignore_patterns("*.safetensors", ".*", "*.html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing up to the stage that is asked for, and record it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("protocol", help="a folder beside this file")
    parser.add_argument("--trials", type=int, default=5, help="of each row; 0: not tuned")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", help="rows to train; default: all")
    parser.add_argument("--folds", nargs="+", help="folds to train; default: all")
    parser.add_argument("--budget", choices=tuple(_TABLES), default="steps", help="equal for all")
    parser.add_argument("--until", choices=("tuning", "table"), default="table")
    options = parser.parse_args(arguments)
    command = "python benchmarks/table.py " + " ".join(arguments or sys.argv[1:])
    protocol, runs = HERE / options.protocol, Path("runs", options.protocol)
    records = RESULTS / options.protocol
    recipe, rows = load_recipe(protocol / "table.yaml"), options.rows
    if unknown := sorted(set(options.folds or ()) - set(recipe.folds)):
        parser.error(
            f"--folds has {', '.join(unknown)}; expected some of {', '.join(recipe.folds)}"
        )
    folds = {n: fold for n, fold in recipe.folds.items() if n in (options.folds or recipe.folds)}
    restore(records, runs)
    if options.trials:
        train_teachers(protocol, runs, [recipe.tuning.teacher] if recipe.tuning else [])
        record(runs, records, command)
    # One trial of every row after the other, so that an interrupted tuning is an equal one of fewer trials.
    for trials in range(1, options.trials + 1):
        out = runs / "tuning"
        tune(replace(recipe, out=str(out)), rows, trials, source=protocol / "table.yaml")
        record(runs, records, command)
    if options.until == "tuning":
        return 0
    own = {} if recipe.teacher is None else {"run": recipe.teacher.run}
    train_teachers(protocol, runs, [fold.teacher or own for fold in folds.values()] or [own])
    chosen = runs / "tuning" / "tuned.yaml"
    if options.trials:
        recipe = load_recipe(chosen)
    recipe = replace(recipe, folds=folds)
    for seeds in range(1, options.seeds + 1):
        out = runs / _TABLES[options.budget]
        compare(replace(recipe, out=str(out)), rows, seeds, budget=options.budget)
        record(runs, records, command)
    return 0


def train_teachers(protocol: Path, runs: Path, named: Sequence[Mapping[str, Any]]) -> None:
    """Train the teachers that a recipe names, each from `teachers/NAME.yaml` to `runs/PROTOCOL/teachers/NAME`."""
    for name in dict.fromkeys(Path(str(one["run"])).name for one in named if one.get("run")):
        recipe = load_recipe(protocol / "teachers" / f"{name}.yaml")
        train(replace(recipe, out=str(runs / "teachers" / name)))


def record(runs: Path, records: Path, command: str) -> None:
    """Copy finished runs without their weights, and what was made of them, to the records."""
    for config in sorted(runs.rglob("config.yaml")):
        run = RunFolder(config.parent)
        if run.measured:
            target = records / config.parent.relative_to(runs)
            shutil.copytree(config.parent, target, ignore=_WEIGHTS, dirs_exist_ok=True)
    # Not tuned.yaml, which names its base by where it lies; the command writes it again.
    for name in ("comparison.json", "claims.json", "costs.json", "tuning.json"):
        for file in sorted(runs.rglob(name)):
            target = records / file.relative_to(runs)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    (records / "command.json").write_text(json.dumps({"command": command}, indent=1) + "\n")


def restore(records: Path, runs: Path) -> None:
    """Put records of trials and rows where their runs would be, unless something is there."""
    for config in sorted(records.rglob("config.yaml")):
        inside = config.parent.relative_to(records)
        if inside.parts[0] in _STAGES and not (runs / inside).exists():
            shutil.copytree(config.parent, runs / inside)
    frozen = [*records.rglob("claims.json"), *records.rglob("costs.json")]
    for file in sorted(frozen):
        if not (target := runs / file.relative_to(records)).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


if __name__ == "__main__":
    sys.exit(main())
