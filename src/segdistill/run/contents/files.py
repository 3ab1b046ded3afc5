"""Reading the JSON files of a run: regular files only, whose content is checked against what each holds."""

import json
import os
from pathlib import Path
from typing import Any

from segdistill.data.reading.opening import irregular
from segdistill.run.contents.figures import inconsistency
from segdistill.run.contents.shapes import (
    CONTENT,
    Shape,
    among,
    anything,
    counts,
    listed,
    mapping,
    maybe,
    number,
    plain,
    record,
    text,
    truth,
    whole,
)


class Damaged(ValueError):
    """A file of a run cannot be read, or does not hold what was written."""


_fraction = number(0, 1)
_size = maybe(listed(whole(1), 2))
_texts = listed(text)
_protocol = record(
    {},
    {
        "size": _size,
        "window": _size,
        "overlap": maybe(number(0, 1)),
        "flip": truth,
        "scales": listed(number(0)),
        "average": among("logits", "probabilities"),
        "precision": plain,
        "align_corners": truth,
        "multiple_of": whole(1),
        "absent": among("undefined", "zero"),
    },
)
_profile = record(
    {},
    {
        "size": listed(whole(1), 2),
        "parameters": number(0),
        "deployed_parameters": number(0),
        "multiply_adds": number(0),
        "threads": maybe(whole(1)),
        "latency_ms_median": maybe(number(0)),
        "latency_ms_p90": maybe(number(0)),
        "latency_ms_p95": maybe(number(0)),
    },
)
_measured = {
    "miou": _fraction,
    "iou": listed(maybe(_fraction)),
    "pixel_accuracy": _fraction,
    "confusion": counts,
}
_agreement = {
    "teacher_miou": _fraction,
    "teacher_iou": listed(maybe(_fraction)),
    "teacher_agreement": _fraction,
    "teacher_confusion": counts,
}
_of_evaluations: dict[str, Shape] = {
    "accuracy": listed(maybe(_fraction)),
    "teacher_found": listed(maybe(_fraction)),
    "classes": _texts,
    "classes_counted": whole(),
    "images": whole(),
    "protocol": _protocol,
    "profile": _profile,
    "split": maybe(text),
    "weights": text,
    "weights_sha256": maybe(text),
    "val_data": maybe(text),
    "data": mapping(anything),
    "of": mapping(anything),
    "by_image": record({"names": _texts, "groups": _texts, "classes": whole(1), "cells": text}),
    "teacher": record({**_measured, "images": whole(), "of": mapping(anything)}),
}


def _evaluation(value: Any, key: str) -> str:
    """Metrics of a network, with labels or against its teacher."""
    against_teacher = isinstance(value, dict) and "teacher_miou" in value
    figures = _agreement if against_teacher else _measured
    needed = {name: figures[name] for name in figures if not name.endswith("confusion")}
    problem = record(needed, {**figures, **_of_evaluations})(value, key)
    return problem or inconsistency(value)


def _on_set(value: Any, key: str) -> str:
    """Metrics on a further set, and those of the teacher there."""
    names = ("classes", "images", "protocol", "split", "weights_sha256", "data", "of")
    needed = {**_measured, **{name: _of_evaluations[name] for name in names}}
    if problem := record(needed, _of_evaluations)(value, key) or inconsistency(value):
        return problem
    teacher = inconsistency({**value.get("teacher", {}), "protocol": value["protocol"]})
    return f"teacher.{teacher}" if teacher else ""


_environment = record(
    {},
    {
        "packages": mapping(maybe(text)),
        "load": maybe(number(0)),
        "cores": maybe(whole(1)),
        "resumed": _texts,
        **dict.fromkeys(
            ("python", "machine", "system", "processor", "threads", "device", "gpu", "processes"),
            plain,
        ),
    },
)


def _model(value: Any, key: str) -> str:
    """How to build a network."""
    problem = record(
        {"name": text, "num_classes": whole(1), "options": mapping(anything), "classes": _texts},
        {
            "rebuild": truth,
            "read_as": mapping(text),
            "factory": truth,
            "palette": listed(listed(whole(0, 255), 3)),
            "size": _size,
            "method": text,
            "step": whole(),
            "train_images": whole(1),
            "train_labelled": whole(),
            "stopped": maybe(mapping(anything)),
            "training_seconds": maybe(number(0)),
            "preparation_seconds": number(0),
            "sha256": text,
            "best_sha256": maybe(text),
        },
    )(value, key)
    if problem:
        return problem
    lengths = {
        len(value["classes"]),
        value["num_classes"],
        len(value.get("palette") or value["classes"]),
    }
    return "" if len(lengths) == 1 else "num_classes, classes and palette are of different lengths"


def _class_pixels(value: Any, key: str) -> str:
    """How often each class occurs in the training labels."""
    needed = {"split": text, "classes": _texts, "pixels": listed(whole()), "total": whole()}
    if problem := record(needed)(value, key):
        return problem
    if len(value["classes"]) != len(value["pixels"]):
        return "classes and pixels are of different lengths"
    return "" if sum(value["pixels"]) == value["total"] else "total is not the sum of pixels"


_network = record(
    {"ece": _fraction},
    {
        "boundary_miou": maybe(_fraction),
        "interior_miou": maybe(_fraction),
        "within_between": maybe(number(0)),
        "position": maybe(record(dict.fromkeys(("border", "interior"), listed(number(high=1), 2)))),
    },
)
_SHAPES: dict[str, Shape] = {
    "evaluation.json": _evaluation,
    "model.json": _model,
    "identity.json": record(
        {
            "student_start": text,
            **dict.fromkeys(("teacher", "train_data", "val_data"), maybe(text)),
            "classes": _texts,
            "taps": mapping(mapping(text)),
            "inputs": mapping(text),
            "training_semantics": whole(),
        },
        {"version": text, "settings": mapping(mapping(text)), "code": mapping(text)},
    ),
    "teacher.json": record(
        {},
        {
            **dict.fromkeys(("run", "module", "sha256", "load"), maybe(text)),
            **dict.fromkeys(("labels", "shown"), mapping(anything)),
            **{key: maybe(shape) for key, shape in _measured.items()},
        },
    ),
    "preparation.json": mapping(mapping(plain)),
    "environment.json": _environment,
    "class_pixels.json": _class_pixels,
    "transfer.json": mapping(
        record(
            {
                "images": whole(1),
                "student": _network,
                "teacher": maybe(_network),
                "of": record({"weights": maybe(text), "teacher": maybe(text)}),
                "edge_correlation": maybe(number(-1, 1)),
                **dict.fromkeys(
                    (
                        "agreement",
                        "agreement_where_right",
                        "agreement_where_wrong",
                        "teacher_right",
                    ),
                    maybe(_fraction),
                ),
            }
        )
    ),
    "costs.json": record(
        {
            "steps": whole(1),
            "rows": mapping(record({"preparation": number(0), "step": number(1e-12)})),
        },
        {"settings": mapping(text)},
    ),
    "claims.json": record(
        {"contrasts": listed(listed(text, 2)), "finished_before": whole()}, {"on": maybe(text)}
    ),
    "parity.json": record(
        {},
        {
            "model.onnx": record({"sha256": text}),
            "int8": maybe(record({}, {"model.int8.onnx": record({"sha256": text})})),
            "data": maybe(record({"name": text})),
            "written": mapping(text),
            "openvino": maybe(
                record(
                    {},
                    {
                        **dict.fromkeys(("model.xml", "model.bin"), record({"sha256": text})),
                        "int8": maybe(
                            record(
                                {},
                                dict.fromkeys(
                                    ("model.int8.xml", "model.int8.bin"),
                                    record({"sha256": text}),
                                ),
                            )
                        ),
                    },
                )
            ),
        },
    ),
}
_REMEDIES: dict[str, str] = {
    **dict.fromkeys(
        ("resume.ckpt", "resume.previous.ckpt"),
        "Remove it; the run resumes from the other checkpoint",
    ),
    "environment.json": "What it said is left out",
    "claims.json": "Restore or remove it",
    "costs.json": "Remove it, and costs are measured again",
    "transfer.json": "Remove it, and measure again with `segdistill evaluate RUN --transfer true`",
    "parity.json": "Export the run again",
}
SETS = "evaluations"
"""Folder of a run: its metrics on further sets, one file per set."""


def _remedy(path: Path) -> str:
    if path.parent.name == SETS:
        return f"Remove it, or run `segdistill evaluate {path.parent.parent} --on {path.stem}`"
    return _REMEDIES.get(path.name, "Restore it, or retrain the run")


def is_there(path: Path) -> bool:
    """Whether there is a file at this path; what is not a regular one would never answer, or is no file.

    Raises:
        Damaged: There is something else, such as a folder, a pipe or a link to nothing.
    """
    if not os.path.lexists(path):
        return False
    if not path.exists():
        raise Damaged(f"{path} is a link to nothing that can be read. {_remedy(path)}")
    if not path.is_file():
        kind = irregular(path.stat().st_mode)
        raise Damaged(f"{path} is a {kind}; expected a file. {_remedy(path)}")
    return True


def read_file(path: Path) -> bytes | None:
    """The content of a regular file; None if there is nothing at this path.

    Raises:
        Damaged: As for `is_there`.
        OSError: It cannot be read.
    """
    if not is_there(path):
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot read {path} ({error.strerror}). Check its permissions and the disk",
        ) from None


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file of a run, checked; None if there is nothing at this path.

    Raises:
        Damaged: The file is not what was written: not JSON, another kind of value, or metrics that
            contradict one another.
        OSError: It cannot be read.
    """
    content = read_file(path)
    if content is None:
        return None
    shape = _on_set if path.parent.name == SETS else _SHAPES.get(path.name, mapping(anything))
    problem = ""
    try:
        values: dict[str, Any] = json.loads(content.decode("utf-8-sig"))
        problem = shape(values, CONTENT)
    except UnicodeDecodeError:
        problem = "it is not text in UTF-8"
    except json.JSONDecodeError as error:
        problem = (
            f"not JSON from line {error.lineno}: {error.msg}" if content.strip() else "it is empty"
        )
    except (ValueError, RecursionError) as error:
        problem = f"not JSON: {error}"
    if problem:
        raise Damaged(f"{path} is damaged ({problem}). {_remedy(path)}")
    return values
