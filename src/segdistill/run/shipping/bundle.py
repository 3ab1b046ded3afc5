"""The files beside an exported network: weights, names of the classes, model card, a script to run it."""

import json
import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from segdistill import __version__
from segdistill.run.evaluation import Evaluation
from segdistill.run.folder import RunFolder, file_sha256, write_atomically
from segdistill.run.shipping.onnx_file import FileInfo
from segdistill.run.shipping.predict import write_legend

BUNDLE = (
    "model.onnx",
    "model.int8.onnx",
    "model.safetensors",
    "parity.json",
    "labels.json",
    "infer.py",
    "MODEL_CARD.md",
)


def write_bundle(
    run: RunFolder, target: Path, info: FileInfo, evaluation: Evaluation, parity: dict[str, Any]
) -> None:
    """Write what belongs beside the ONNX files.

    Args:
        run: The run that was exported.
        target: Folder to write to.
        info: Of the ONNX file.
        evaluation: Of the float32 file on the run's evaluation split.
        parity: As in parity.json.
    """
    shutil.copyfile(run.weights_path(), target / "model.safetensors")
    write_legend(info.classes, info.palette, target / "labels.json")
    # It reads photographs, and without `resize` resizing is the caller's.
    if info.resize and info.channels == 3:
        shutil.copyfile(Path(__file__).with_name("infer.py"), target / "infer.py")
    write_atomically(target / "MODEL_CARD.md", _card(run, target, info, evaluation, parity))


def _card(
    run: RunFolder, target: Path, info: FileInfo, evaluation: Evaluation, parity: dict[str, Any]
) -> str:
    config = run.config()
    environment = Environment(
        loader=PackageLoader("segdistill.run.shipping", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.2f}"
    counts = evaluation.confusion.sum(1).double()
    return environment.get_template("model_card.md.j2").render(
        version=__version__,
        run=run,
        model=run.model_info(),
        teacher=_teacher(run),
        data={**config["data"], "options": json.dumps(config["data"].get("options", {}))},
        info=info,
        evaluation=evaluation,
        rows=list(
            zip(
                evaluation.classes,
                evaluation.iou,
                evaluation.accuracy,
                (counts / counts.sum()).tolist(),
                strict=True,
            )
        ),
        parity=parity,
        environment=run.environment(),
        weights_sha256=file_sha256(target / "model.safetensors"),
    )


def _teacher(run: RunFolder) -> dict[str, Any] | None:
    """The teacher audit; the hash is that of the weights it taught with, whatever lies there by now."""
    found = run.teacher()
    if found is None:
        return None
    source = next((found[key] for key in ("run", "module", "model") if found.get(key)), "unknown")
    return {**found, "source": source, "sha256": found.get("sha256")}
