"""Export a run: an ONNX file, compared with PyTorch, in a folder with everything needed to deploy it."""

import logging
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from segdistill.data.dataset import generated_palette
from segdistill.extras import check_installed, require
from segdistill.models.foreign.wrapped import wrap
from segdistill.run.environment import describe_environment
from segdistill.run.evaluation import (
    Evaluation,
    Protocol,
    Size,
    check_size,
    measure,
)
from segdistill.run.folder import (
    RunFolder,
    output_folder,
    write_atomically,
    write_json,
)
from segdistill.run.identity import check_split, check_teacher
from segdistill.run.lock import writing
from segdistill.run.networks import load_run_model, load_teacher
from segdistill.run.opening import open_split
from segdistill.run.shipping.bundle import (
    BUNDLE,
    CARD,
    PARITY,
    SCRIPT,
    check_replaced,
    file_record,
    files_record,
    write_card,
    write_files,
)
from segdistill.run.shipping.image_files import parity_from_files, report_files
from segdistill.run.shipping.int8 import Int8, report_int8
from segdistill.run.shipping.onnx_file import (
    OPSETS,
    Deployed,
    FileInfo,
    OnnxNetwork,
    file_info,
    onnx_bytes,
)
from segdistill.run.shipping.openvino.file import (
    FILES,
    content_for_openvino,
    parity_in_openvino,
    write_openvino,
)
from segdistill.run.shipping.parity import (
    AGREEMENT,
    parity_with_pytorch,
    spread_images,
    with_logits,
)
from segdistill.run.shipping.timing import time_files, time_networks
from segdistill.trust import trusting

_log = logging.getLogger(__name__)

_Target = Literal["onnx", "openvino"]
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def export(
    run: str | Path | RunFolder,
    out: str | Path | None = None,
    *,
    resize: bool = True,
    argmax: bool = True,
    size: Size | None = None,
    opset: int = 18,
    to: _Target = "onnx",
    int8: bool = False,
    calibration: int = 64,
    max_drop: float = 1.0,
    max_class_drop: float = 5.0,
    model: nn.Module | None = None,
    val_set: Any = None,
    train_set: Any = None,
    trust: bool = False,
) -> Path:
    """Export a run's last weights to ONNX, check the file against PyTorch, and write the folder to ship.

    The file accepts `images` in 0..1, float32 `b 3 h w` (RGB; other channels where the network reads
    them), and includes the network's normalisation.
    It is run in onnxruntime at three sizes, odd ones included, and on the run's evaluation split,
    compared with PyTorch, and timed; `infer.py` is run on image files and compared with evaluation.
    `parity.json` holds the results. See docs/export.md for the folder.

    Args:
        run: A finished run.
        out: Folder to write; None: `export` inside the run.
        resize: Accept images of any size and return maps of that size. False: return the network's
            own logits grid, and leave resizing to the caller.
        argmax: Return class ids (uint8 `b h w`) instead of logits (`b k h w`).
        size: Height and width at which the network sees an image; None: as in the run. With
            `resize=False` the file accepts only this size.
        opset: ONNX opset, 18 to 23.
        to: `openvino` also writes `model.xml` and `model.bin`, compared with PyTorch and timed likewise.
        int8: Also write `model.int8.onnx`, calibrated on the run's training images, and for OpenVINO
            `model.int8.xml` and `model.int8.bin`.
        calibration: Number of calibration images, spread evenly over the split.
        max_drop: Largest loss of mIoU allowed for int8 on the evaluation split, in points.
        max_class_drop: Largest loss of IoU allowed for any class, in points.
        model: The network, if the run trained a module that cannot be rebuilt by name; wrapped with
            its input normalisation if it was trained with one (`segdistill.models.wrap`).
        val_set, train_set: The data, if the run's recipe does not name it.
        trust: Import modules of somebody's code that the run names, now and from now on (SECURITY.md).

    Returns:
        The folder.

    Raises:
        FileNotFoundError: The run does not exist or is not finished.
        IdentityDiffers: The data, or the teacher at its path, is not what the run used.
        ValueError: A setting is out of range, the folder cannot be written to or holds files that no export
            wrote or that were changed since (but for the licence in the card), the evaluation split has no
            labels, a package of the extra `export` (`openvino`, `nncf`) is missing, the network cannot be
            exported, the file disagrees with PyTorch on more than 0.1 % of the pixels at one of the sizes (in
            OpenVINO, too), `infer.py` disagrees with evaluation on image files by more than that and not for
            rounding to 8 bits (the files are kept for inspection), or int8 loses too much (the float32 file is
            kept).
    """
    for package in _EXTRA:
        require(package, "export")
    if to not in get_args(_Target):
        raise ValueError(f"to is {to!r}; expected onnx or openvino")
    if to == "openvino":
        check_installed("openvino", "openvino")
        if int8:
            check_installed("nncf", "nncf")
    if opset not in OPSETS:
        raise ValueError(f"opset is {opset}; expected {OPSETS[0]} to {OPSETS[-1]}")
    if calibration < 1:
        raise ValueError(f"calibration is {calibration}; expected a positive integer")
    if size is not None:
        check_size(size)
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    info = folder.model_info()
    data, recorded = folder.recipe().data, None
    with trusting(trust):
        model = load_run_model(folder, model=model).cpu()
        if val_set is None:
            # A path of this machine is of no use elsewhere, and nobody's business.
            here = data.root is not None and Path(data.root).is_absolute()
            recorded = asdict(replace(data, root=None) if here else data)
            val_set = open_split(data, "val", labelled=False)
        if int8 and train_set is None:
            train_set = open_split(data, "train", labelled=False)
    size = size or (tuple(info["size"]) if info["size"] else None)
    if not hasattr(model, "num_classes"):
        model = wrap(model, len(info["classes"]), taps={})
    if not getattr(val_set, "labelled", True):
        raise ValueError(
            f"{folder.path}: the evaluation split has no labels, and export measures mIoU on it. Name a "
            "labelled split in the recipe (data.val_split), or pass a labelled val_set= from Python"
        )
    check_split(folder, val_set)
    check_teacher(folder)
    if int8:
        check_split(folder, train_set, "train")
    palette = info["palette"] or generated_palette(len(info["classes"]))
    described = file_info(model, info["classes"], palette, size, resize, argmax)
    target = _target(folder, out)
    quantised = None
    if int8:
        count = min(calibration, len(train_set))
        quantised = Int8(train_set, count, max_drop, max_class_drop)
    try:
        with trusting(trust), writing(target):
            _write(
                folder,
                target,
                Deployed(model, described),
                val_set,
                size,
                opset,
                quantised,
                recorded,
                to,
            )
    except ValueError:
        with suppress(
            OSError
        ):  # it holds something: an earlier export, or what there is to inspect
            target.rmdir()
        raise
    return target


def _write(
    run: RunFolder,
    target: Path,
    deployed: Deployed,
    val_set: Any,
    size: Size | None,
    opset: int,
    int8: Int8 | None,
    data: dict[str, Any] | None,
    to: str,
) -> None:
    """Write the file, its parity, the int8 file if requested, and the files that ship with them."""
    content = onnx_bytes(deployed, opset)
    # Files of an earlier export do not belong to this one; its card has the licence.
    for name in set(BUNDLE) - {CARD}:
        (target / name).unlink(missing_ok=True)
    # It says whose the files are, should the rest be interrupted.
    write_json(target / PARITY, {"unfinished": True})
    write_atomically(target / "model.onnx", content)
    network = OnnxNetwork(target / "model.onnx")
    plain = measure(network, val_set, Protocol(network.size))
    parity = {
        **parity_with_pytorch(deployed, OnnxNetwork(with_logits(content)).run, val_set),
        "miou": _figures(measure(deployed.model, val_set, Protocol(size)), plain),
        "threshold": AGREEMENT,
        "opset": opset,
        "data": data,
        "model.onnx": file_record(target / "model.onnx"),
        "environment": _environment(to, int8 is not None),
    }
    if int8 is not None:
        parity["int8"] = int8.in_onnxruntime(target, network.size, val_set, plain)
    if to == "openvino":
        other = content_for_openvino(content, deployed, opset)
        write_openvino(other, target)
        parity["openvino"] = {
            **parity_in_openvino(target, other, deployed, val_set),
            **{name: file_record(target / name) for name in FILES},
        }
        if int8 is not None:
            found = int8.in_openvino(target, network.size, val_set, plain)
            parity["openvino"]["int8"] = found
    parity["latency"] = _latency(run, target, deployed, val_set)
    write_files(run, target, deployed.info)
    if (target / SCRIPT).exists():
        parity["files"] = _from_files(target, deployed, size, val_set)
    parity[CARD] = write_card(run, target, deployed.info, plain, parity)
    write_json(target / PARITY, {**parity, "written": files_record(target)})
    _warn(deployed.info, plain, parity)
    _report(target, parity)


def _from_files(
    target: Path, deployed: Deployed, size: Size | None, val_set: Any
) -> dict[str, Any]:
    classes = len(deployed.info.classes)
    seen = Protocol(size)
    return parity_from_files(target / SCRIPT, deployed.model, classes, seen, val_set, AGREEMENT)


def _latency(run: RunFolder, target: Path, deployed: Deployed, val_set: Any) -> dict[str, Any]:
    """Latency of the written files at the size of the first image of the evaluation split.

    Beside it, where the teacher is at hand, that of both networks in PyTorch.
    """
    names = ("model.onnx", "model.int8.onnx", FILES[0], "model.int8.xml")
    files = {name: target / name for name in names}
    height, width = next(spread_images(val_set, 1)).shape[-2:]
    found = time_files({n: path for n, path in files.items() if path.exists()}, (height, width))
    if (teacher := _teacher(run, deployed.info.classes)) is not None:
        seen = deployed.info.size or (height, width)
        try:
            found["pytorch"] = time_networks(deployed.model, teacher, seen)
        except RuntimeError as error:  # it may not take this size, or not fit into memory
            _log.warning("the teacher is not timed: %s", error)
    return found


def _teacher(run: RunFolder, classes: list[str]) -> nn.Module | None:
    """The run's teacher, to be timed; None, and the log says why, where it is not at hand."""
    config = run.recipe().teacher
    if config is None or config.random:
        return None
    try:
        return load_teacher(config, classes)[0].cpu()
    except (OSError, ValueError) as error:
        _log.warning("the teacher is not timed: %s", error)
        return None


def _target(run: RunFolder, out: str | Path | None) -> Path:
    target = output_folder(run.path / "export" if out is None else out)
    if (target / "config.yaml").exists():
        raise ValueError(f"{target} is a run. Name another folder with --out")
    check_replaced(target)
    return target


def _figures(model: Evaluation, file: Evaluation) -> dict[str, float]:
    return {
        "pytorch": model.miou,
        "onnx": file.miou,
        "difference": file.miou - model.miou,
        "images": file.images,
    }


def _environment(to: str, int8: bool) -> dict[str, Any]:
    environment = describe_environment(torch.device("cpu"))
    if to == "openvino":
        for package in ("openvino", "nncf") if int8 else ("openvino",):
            # By its metadata: it is not imported here.
            environment["packages"][package] = version(package)
    for package in _EXTRA:
        environment["packages"][package] = require(package, "export").__version__
    return environment


def _warn(info: FileInfo, plain: Evaluation, parity: dict[str, Any]) -> None:
    """Warn about results that the metrics hide."""
    predicted = plain.confusion.sum(0).nonzero().flatten().tolist()
    if len(predicted) == 1:
        _log.warning(
            "the network predicts only %s on the evaluation split, so agreement with it is not informative",
            plain.classes[predicted[0]],
        )
    lost = -100 * parity["miou"]["difference"]
    if info.argmax and not info.resize and lost > 0.1:
        _log.warning(
            "class ids at the network's stride lose %.2f points of mIoU at full size. Use --argmax false "
            "for logits, which can be resized bilinearly",
            lost,
        )


def _times(latency: dict[str, Any]) -> str:
    """Latency of the files, such as "latency of one image of 360×480: model.onnx 49.0 ms (..)"."""
    (height, width), threads = latency["size"], latency["threads"]
    times = ", ".join(
        f"{name} {found['median_ms']:.1f} ms"
        for name, found in latency.items()
        if name.endswith((".onnx", ".xml"))
    )
    runtimes = "onnxruntime" + ", .xml in OpenVINO," * ("model.xml" in latency)
    where = f"median in {runtimes} on this CPU, {threads} thread{'s' * (threads != 1)}"
    return f"latency of one image of {height}×{width}: {times} ({where})"


def _report_openvino(target: Path, found: dict[str, Any]) -> None:
    """Log what the OpenVINO file is worth.

    Raises:
        ValueError: It disagrees with PyTorch in float32.
    """
    exact, default = found["float32"], found["default"]
    _log.info(
        "%s: at least %.3f %% of the labels agree in float32, %.3f %% in %s, this processor's default",
        target / FILES[0],
        100 * exact["label_agreement"],
        100 * default["label_agreement"],
        default["precision"],
    )
    if not exact["passed"]:
        raise ValueError(
            f"{target / FILES[0]} agrees with PyTorch on {100 * exact['label_agreement']:.3f} % of the pixels; "
            f"expected at least {100 * AGREEMENT} %. Do not ship it; see parity.json"
        )


def _report(target: Path, parity: dict[str, Any]) -> None:
    """Log the results.

    Raises:
        ValueError: The file or its int8 version failed.
    """
    _log.info(
        "%s: at least %.3f %% of the labels agree at %d sizes, logits differ by at most %.2g, "
        "%.2f mIoU (PyTorch %.2f), %.2f MB",
        target / "model.onnx",
        100 * parity["label_agreement"],
        len(parity["sizes"]),
        parity["max_logit_difference"],
        100 * parity["miou"]["onnx"],
        100 * parity["miou"]["pytorch"],
        parity["model.onnx"]["bytes"] / 1e6,
    )
    _log.info("%s", _times(parity["latency"]))
    if not parity["passed"]:
        raise ValueError(
            f"{target / 'model.onnx'} agrees with PyTorch on {100 * parity['label_agreement']:.3f} % of the "
            f"pixels; expected at least {100 * AGREEMENT} %. Do not ship it; see parity.json"
        )
    if (found := parity.get("openvino")) is not None:
        _report_openvino(target, found)
    if "files" in parity:
        report_files(target / SCRIPT, parity["files"], AGREEMENT)
    report_int8(target, parity)
