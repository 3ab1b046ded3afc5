"""Candidates in the runtime that will be shipped, timed in turns."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from segdistill.extras import check_installed, require
from segdistill.run.evaluation import Size, evaluating
from segdistill.run.evaluation.profile import Latency, measure_latency
from segdistill.run.progress import duration
from segdistill.run.shipping.onnx_file import OPSETS, Deployed, OnnxNetwork, onnx_bytes
from segdistill.run.shipping.openvino.file import OpenVinoAlone
from segdistill.run.shipping.timing import FileAlone
from segdistill.run.suggesting.candidates import Candidate

_log = logging.getLogger(__name__)

Runtime = Literal["onnxruntime", "openvino", "pytorch"]
_SECONDS = 60.0


def check_runtime(runtime: str, device: str) -> None:
    """Refuse a runtime that is not installed, or that does not run on the device.

    Raises:
        ValueError: As said; the message tells what to install, or what to change.
    """
    if device == "cuda" and runtime != "pytorch":
        raise ValueError(
            f"--runtime is {runtime} and --device cuda; expected --runtime pytorch, as {runtime} is measured "
            "on the CPU only"
        )
    if runtime != "pytorch":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "export")
    if runtime == "openvino":
        check_installed("openvino", "openvino")


def ready(candidate: Candidate, runtime: Runtime, size: Size) -> tuple[Candidate, nn.Module | None]:
    """Export a candidate and open it in the runtime; if that fails, None and the candidate with the reason."""
    if candidate.deployed is None:
        return candidate, None
    try:
        network = _opened(candidate.deployed, runtime, size)
        with evaluating(network):
            network(torch.zeros(1, candidate.deployed.info.channels, *size))
    except Exception as error:  # exporter and runtimes have errors of many kinds
        return candidate.failed(error), None
    return candidate, network


def _opened(deployed: Deployed, runtime: Runtime, size: Size) -> nn.Module:
    if runtime == "pytorch":
        # `measure_latency` asks the network for its channels.
        deployed.in_channels = deployed.info.channels  # type: ignore[assignment]
        return deployed
    content = onnx_bytes(deployed, OPSETS[0])
    if runtime == "openvino":
        return OpenVinoAlone(content, size, deployed.info.channels)
    return FileAlone(OnnxNetwork(content, torch.get_num_threads()))


def timed(
    candidates: Sequence[Candidate],
    runtime: Runtime,
    size: Size,
    device: str,
    repeats: int,
    seconds: float = _SECONDS,
) -> tuple[list[Candidate], dict[str, Latency]]:
    """Time the candidates in rounds, in each of which every one runs once.

    Returns:
        The candidates, those that failed with their reason, and the latency of the others by label.
    """
    found, networks = list[Candidate](), dict[str, nn.Module]()
    for candidate in _announced(candidates, runtime):
        candidate, network = ready(candidate, runtime, size)
        if network is not None:
            networks[candidate.label] = network
        found.append(replace(candidate, deployed=None))
    if not networks:
        return found, {}
    _log.info("%d networks are timed in turns, for at most about %.0f s", len(networks), seconds)
    times = measure_latency(networks, size, repeats, warmup=3, seconds=seconds, device=device)
    return found, times


def _announced(candidates: Sequence[Candidate], runtime: Runtime) -> Iterator[Candidate]:
    """The candidates, each with a line beforehand, since an export may take a minute."""
    began = time.monotonic()
    for number, candidate in enumerate(candidates):
        left = (time.monotonic() - began) / max(number, 1) * (len(candidates) - number)
        rest = f", about {duration(left)} left" if number else ""
        what = f"preparing {candidate.label} for {runtime}"
        _log.info("%s (%d of %d%s)", what, number + 1, len(candidates), rest)
        yield candidate
