"""The files that ship with an exported network: weights, class names, model card, inference script."""

import hashlib
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segdistill import __version__
from segdistill.escaping import markdown, markdown_code
from segdistill.run.contents import read_json
from segdistill.run.evaluation import Evaluation
from segdistill.run.folder import RunFolder, file_sha256, write_atomically
from segdistill.run.shipping.onnx_file import FileInfo
from segdistill.run.shipping.predict import write_legend

SCRIPT = "infer.py"
CARD = "MODEL_CARD.md"
PARITY = "parity.json"
BUNDLE = (
    "model.onnx",
    "model.int8.onnx",
    "model.xml",
    "model.bin",
    "model.int8.xml",
    "model.int8.bin",
    "model.safetensors",
    PARITY,
    "labels.json",
    SCRIPT,
    CARD,
)
_LICENCE = re.compile(r"^\| licence \| (.*) \|[ \t]*$", re.MULTILINE)
_UNFILLED = "*to be filled in: the licence of the weights, which depends on the training data*"


def file_record(path: Path) -> dict[str, Any]:
    """Size and hash of a file, as in parity.json."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def int8_results(parity: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name of each int8 file that was made -> its entry in the content of parity.json."""
    found = {
        "model.int8.onnx": parity.get("int8"),
        "model.int8.xml": parity.get("openvino", {}).get("int8"),
    }
    return {name: entry for name, entry in found.items() if entry is not None}


def write_files(run: RunFolder, target: Path, info: FileInfo) -> None:
    """Write what an ONNX file needs to be used: weights, legend, and the script where it can read the images.

    Args:
        run: The run that was exported.
        target: Folder to write to.
        info: Description of the ONNX file.
    """
    shutil.copyfile(run.weights_path(), target / "model.safetensors")
    write_legend(info.classes, info.palette, target / "labels.json")
    # The script reads RGB images and does not resize.
    if info.resize and info.channels == 3:
        shutil.copyfile(Path(__file__).with_name(SCRIPT), target / SCRIPT)


def files_record(target: Path) -> dict[str, str]:
    """SHA-256 of each file of an export but its card and record, by name."""
    names = [name for name in BUNDLE if name not in (CARD, PARITY) and (target / name).is_file()]
    return {name: file_sha256(target / name) for name in names}


def check_replaced(target: Path) -> None:
    """Refuse to replace files that no export wrote, or that were changed since, and a card as `check_card` says.

    Raises:
        ValueError: One is there; nothing was removed yet.
    """
    check_card(target)
    found = files_record(target)
    try:
        parity = read_json(target / PARITY)
    except ValueError:  # damaged, but an export's
        parity = {}
    # An export that was interrupted, or is of an older version, has no record.
    recorded = {} if parity is None else parity.get("written", found)
    others = [name for name, digest in found.items() if recorded.get(name) != digest]
    if others:
        more = f", and {len(others) - 1} more" if others[1:] else ""
        raise ValueError(
            f"{target / others[0]}{more}: export did not write what is there, or it was changed since; expected files "
            "that may be replaced. Move them, or name another folder with --out"
        )


def check_card(target: Path) -> None:
    """Refuse to replace a card that somebody changed beyond its licence, which the next card takes over.

    Raises:
        ValueError: The card is not the one that `export` wrote.
    """
    card = target / CARD
    if not card.is_file():
        return
    text, recorded = _text(card), None
    with suppress(ValueError):  # a damaged file is written anew
        recorded = (read_json(target / PARITY) or {}).get(CARD)
    # Cards of older versions have no record.
    own = recorded == card_record(text) if recorded else "exported by segdistill" in text
    if not own:
        raise ValueError(
            f"{card} was changed beyond its licence line; expected the card that export wrote, which is replaced. "
            "Move it, or name another folder with --out"
        )


def card_record(text: str) -> dict[str, str]:
    """Hash of a card without what somebody filled in, as in parity.json."""
    plain = _LICENCE.sub("", text, count=1)
    return {"sha256": hashlib.sha256(plain.encode()).hexdigest()}


def _licence_in(card: Path) -> str:
    """The licence that somebody filled into a card, as it stands there."""
    found = _LICENCE.search(_text(card)) if card.is_file() else None
    return _UNFILLED if found is None else found[1]


def _text(card: Path) -> str:
    return card.read_text(encoding="utf-8", errors="replace")


def write_card(
    run: RunFolder, target: Path, info: FileInfo, evaluation: Evaluation, parity: dict[str, Any]
) -> dict[str, str]:
    """Write the model card, with the licence of the one before it.

    Args:
        run: The run that was exported.
        target: Folder to write to.
        info: Description of the ONNX file.
        evaluation: Metrics of the float32 file on the run's evaluation split.
        parity: Content of parity.json.

    Returns:
        Its record for parity.json.
    """
    text = _card(run, target, info, evaluation, parity)
    write_atomically(target / CARD, text)
    return card_record(text)


def _card(
    run: RunFolder, target: Path, info: FileInfo, evaluation: Evaluation, parity: dict[str, Any]
) -> str:
    config = run.config()
    environment = Environment(
        loader=PackageLoader("segdistill.run.shipping", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["code"] = lambda value: Markup(markdown_code(value))
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
        int8={name: found for name, found in int8_results(parity).items() if found["passed"]},
        environment=run.environment(),
        weights_sha256=file_sha256(target / "model.safetensors"),
        licence=Markup(_licence_in(target / CARD)),
    )


def _shown(value: Any) -> Any:
    """Text inside the card's Markdown; what a filter has escaped already stays."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else markdown(value)


def _teacher(run: RunFolder) -> dict[str, Any] | None:
    """The teacher audit, with the hash of the weights at training time even if the file has changed since."""
    audit = run.teacher()
    if audit is None:
        return None
    source = next((audit[key] for key in ("run", "module", "model") if audit.get(key)), "unknown")
    return {**audit, "source": source, "sha256": audit.get("sha256")}
