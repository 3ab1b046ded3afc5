"""What `export` wrote, as a network to measure: the folder, or an .onnx or .xml file in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segdistill.config import DataConfig, Recipe
from segdistill.run.console import say
from segdistill.run.contents import read_json
from segdistill.run.evaluation import Protocol, Size, measure
from segdistill.run.evaluation.profile import compare, table
from segdistill.run.evaluation.protocol import check_overlap
from segdistill.run.folder import file_sha256
from segdistill.run.identity.seen import check_seen_by
from segdistill.run.opening import check_set_classes, open_split, refuse_unread_root
from segdistill.run.recipe import changed_data, parse_recipe
from segdistill.run.shipping.onnx_file import FileNetwork, OnnxNetwork
from segdistill.run.shipping.openvino.file import OpenVinoAlone, OpenVinoNetwork
from segdistill.run.shipping.timing import FileAlone
from segdistill.trust import from_run


def exported_file(path: str | Path) -> Path | None:
    """The file that a path names, or the .onnx file in the folder that it names; None for a run or anything else."""
    path = Path(path)
    if path.suffix in (".onnx", ".xml") and path.is_file():
        return path
    file = path / "model.onnx"
    return file if file.is_file() and not (path / "config.yaml").is_file() else None


def load_exported(file: Path, threads: int = 0) -> FileNetwork:
    """The file as a network.

    Args:
        file: An .onnx or .xml file.
        threads: As for `OnnxNetwork`; of no effect on an .xml file.

    Raises:
        ValueError: It cannot be read, or is not the file whose parity was measured. Without parity.json
            nothing is known of that.
    """
    parity = read_json(file.with_name("parity.json")) or {}
    openvino = parity.get("openvino") or {}
    records = {**parity, **(parity.get("int8") or {}), **openvino, **(openvino.get("int8") or {})}
    # The weights of an .xml file lie beside it.
    for part in (file, file.with_suffix(".bin")) if file.suffix == ".xml" else (file,):
        recorded = records.get(part.name)
        known = recorded.get("sha256") if isinstance(recorded, Mapping) else None
        if known and part.is_file() and file_sha256(part) != known:
            raise ValueError(
                f"{part} is not the file that `export` wrote (its SHA-256 differs from parity.json). Restore the "
                "file, or export the run again"
            )
    return OnnxNetwork(file, threads) if file.suffix == ".onnx" else OpenVinoNetwork(file)


def timed_alone(file: Path, size: Size) -> nn.Module:
    """The file as a network to time at a size, checked as by `load_exported`."""
    network = load_exported(file, torch.get_num_threads())
    if network.size not in (None, size):
        height, width = network.size
        raise ValueError(
            f"{file} accepts only images of {height}x{width}; expected this size. Add --size [{height},{width}]"
        )
    if isinstance(network, OnnxNetwork):
        return FileAlone(network)
    return OpenVinoAlone(file, size, network.in_channels)


def evaluate_exported(
    file: Path,
    changes: Mapping[str, str],
    given: Mapping[str, Any],
    views: Mapping[str, Any],
    device: str,
) -> None:
    """Measure an exported file on a labelled split and print the table; on the data of its run, unless changed.

    Args:
        file: The file.
        changes: Changes to the data, by key, as text.
        given: Options that apply to runs only; None: not given.
        views: `window`, `overlap`, `flip`, `scales` and `absent`; None for the plain view of each image.
        device: `auto` or `cpu`.

    Raises:
        ValueError: An option applies to runs only, the data is not known or has other classes, or the
            file cannot be used.
    """
    if asked := [key for key, value in given.items() if value is not None]:
        raise ValueError(
            f"evaluate: --{asked[0]} is given for {file}, an exported file, which keeps no records and holds "
            "one network; expected a run. Name the run, or omit the option"
        )
    if "size" in changes:
        raise ValueError(
            f"evaluate: --data.size is given for {file}, which shows images as it was exported; expected none. "
            "Measure the run instead"
        )
    if device == "cuda":
        raise ValueError(
            "evaluate: --device is cuda; expected cpu, where exported files run. Omit it"
        )
    network = load_exported(file)
    data = changed_data(_data_of(file, changes), changes)
    if "root" in changes:
        refuse_unread_root(data)
    dataset = open_split(data, "val")
    check_set_classes(dataset, network.info.classes, f"{data.name}, split {data.val_split!r},")
    if (known := recorded_data(file)) is not None and known.root is not None:
        check_seen_by(Recipe(data=known), data.val_split, dataset)
    values = {key: value for key, value in views.items() if value is not None}
    useless = [key for key in ("window", "scales") if key in values]
    if useless and network.info.resize and network.info.size is not None:
        height, width = network.info.size
        raise ValueError(
            f"evaluate: --{useless[0]} is given for {file}, which resizes every image to {height}x{width}, "
            "windows and scaled images too; expected none. Measure the run instead"
        )
    absent = values.pop("absent", "undefined")
    protocol = Protocol(network.size, **values)
    check_overlap(values.get("overlap"), protocol)
    say(measure(network, dataset, protocol, absent=absent, device="cpu").table())
    height, width = dataset[0]["image"].shape[-2:]
    size = network.size or (height, width)
    say(table(compare({str(file): timed_alone(file, size)}, size)))


def recorded_data(file: Path) -> DataConfig | None:
    """The data of the run that was exported; None where it is unknown."""
    recorded = (read_json(file.with_name("parity.json")) or {}).get("data")
    if recorded is None:
        return None
    data = parse_recipe({"data": recorded}).data
    data.name = from_run(data.name, str(file.parent))
    return data


def _data_of(file: Path, changes: Mapping[str, str]) -> DataConfig:
    """The data of the run that was exported; any, where it is unknown and the changes name another."""
    if (data := recorded_data(file)) is not None:
        return data
    if "name" not in changes:
        record = file.with_name("parity.json")
        why = (
            f"{record.name} beside {file} names no data, since the run was exported with data from Python or by an "
            "older version"
            if record.exists()
            else f"there is no {record.name} beside {file}, which names the data"
        )
        raise ValueError(
            f"evaluate: {why}. Say which, such as --data.name folder --data.root FOLDER"
        )
    return DataConfig(changes["name"])
