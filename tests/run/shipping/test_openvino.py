"""OpenVINO in a process of its own."""

import gc
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch

from segdistill.run.shipping.openvino import program
from segdistill.run.shipping.openvino.int8 import quantise_openvino
from segdistill.run.shipping.openvino.process import OpenVinoProcess
from tests.run import processes


def _content() -> bytes:
    """A file that doubles an image."""
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    shape = ["batch", 3, "height", "width"]
    given, found = (make.make_tensor_value_info(name, kind, shape) for name in ("images", "logits"))
    graph = make.make_graph(
        [make.make_node("Add", ["images", "images"], ["logits"])], "double", [given], [found]
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _convolutional() -> bytes:
    """A file that subtracts a mean, convolves twice with a ReLU between, and doubles the result."""
    make, kind, random = onnx.helper, onnx.TensorProto.FLOAT, np.random.default_rng(0)
    shape = ["batch", 3, "height", "width"]
    given, found = (make.make_tensor_value_info(name, kind, shape) for name in ("images", "logits"))
    values = {
        "mean": np.full((1, 3, 1, 1), 0.5, np.float32),
        "first": random.standard_normal((3, 3, 1, 1)).astype(np.float32),
        "second": random.standard_normal((3, 1, 3, 3)).astype(np.float32),
    }
    nodes = [
        make.make_node("Sub", ["images", "mean"], ["normalised"]),
        make.make_node("Conv", ["normalised", "first"], ["hidden"]),
        make.make_node("Relu", ["hidden"], ["active"]),
        make.make_node("Conv", ["active", "second"], ["small"], group=3, pads=[1, 1, 1, 1]),
        make.make_node("Add", ["small", "small"], ["logits"]),
    ]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = make.make_graph(nodes, "convolutional", [given], [found], constants)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _quantised(folder: Path) -> Path:
    """The convolutional file in int8, calibrated on images of three sizes."""
    torch.manual_seed(0)
    OpenVinoProcess().write(_convolutional(), folder / "model.xml", "one\ntwo")
    images = [torch.rand(1, 3, 16, width) for width in (16, 24, 17)]
    quantise_openvino(folder / "model.xml", folder / "model.int8.xml", images)
    return folder / "model.int8.xml"


def _put(folder: Path, package: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that processes started from now on find before an installed one."""
    file = folder / package / "__init__.py"
    file.parent.mkdir()
    file.write_text(text)
    places = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    return file


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def opened() -> OpenVinoProcess:
    process = OpenVinoProcess()
    process.open(_content(), {"INFERENCE_PRECISION_HINT": "f32"})
    return process


def test_openvino_is_not_loaded_beside_pytorch(opened: OpenVinoProcess) -> None:
    images = np.random.default_rng(0).random((2, 3, 5, 7), dtype=np.float32)
    np.testing.assert_array_equal(opened.run(images)[0], 2 * images)
    opened.again()
    np.testing.assert_array_equal(opened.run(images[:, :, ::2].copy())[0], 2 * images[:, :, ::2])
    assert "openvino" not in sys.modules


_LEAVES_A_TRACE = "open(__file__ + '.imported', 'w')"


def test_importing_it_sends_no_usage_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = _put(tmp_path, "openvino_telemetry", _LEAVES_A_TRACE, monkeypatch)
    OpenVinoProcess().open(_content(), {})
    assert not package.with_name("__init__.py.imported").exists()


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in int8; two packages beside it tell whether NNCF imported them."""
    folder = tmp_path_factory.mktemp("quantised")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("openvino_telemetry", "torch"):
            _put(folder, name, _LEAVES_A_TRACE, patch)
        return _quantised(folder)


@pytest.mark.parametrize("name", ["openvino_telemetry", "torch"])
def test_nncf_sends_no_usage_data_and_loads_no_pytorch(name: str, quantised: Path) -> None:
    assert quantised.is_file()
    assert (quantised.parent / name / "__init__.py").is_file()
    assert not (quantised.parent / name / "__init__.py.imported").exists()


def test_an_int8_file_computes_about_the_same(quantised: Path) -> None:
    file, images = quantised, np.random.default_rng(1).random((2, 3, 20, 18), np.float32)
    process, exact = OpenVinoProcess(), OpenVinoProcess()
    assert process.open(file, {"INFERENCE_PRECISION_HINT": "f32"})["text"] == "one\ntwo"
    exact.open(_convolutional(), {"INFERENCE_PRECISION_HINT": "f32"})
    (found,), (expected,) = process.run(images), exact.run(images)
    gap = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < gap < 0.05  # 7 bits of weights and 8 of activations, in two layers


def test_int8_begins_with_the_first_convolution_and_ends_with_the_last(quantised: Path) -> None:
    net = ElementTree.parse(quantised).getroot()
    kinds = {layer.get("id"): layer.get("type") for layer in net.iter("layer")}
    edges = [
        (edge.get("from-layer"), edge.get("to-layer"), edge.get("to-port"))
        for edge in net.iter("edge")
    ]
    quantised = {
        kinds[source] for source, to, port in edges if kinds[to] == "FakeQuantize" and port == "0"
    }
    # Weights are constants, reshaped for groups.
    assert quantised - {"Const", "Reshape"} == {"Subtract", "ReLU"}


def test_a_file_that_nncf_cannot_quantise_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _put(tmp_path, "nncf", "raise ImportError('no SciPy')", monkeypatch)
    with pytest.raises(
        ValueError, match=r"^NNCF cannot quantise .*no SciPy.* Export without --int8"
    ):
        _quantised(tmp_path)
    assert not (tmp_path / "model.int8.xml").exists()


def test_a_written_file_has_its_text(opened: OpenVinoProcess, tmp_path: Path) -> None:
    opened.write(_content(), tmp_path / "model.xml", "one\ntwo")
    found = OpenVinoProcess().open(tmp_path / "model.xml", {}, [1, 3, 4, 6])
    assert found["text"] == "one\ntwo" and found["accepted"] == "[1,3,4,6]"


def test_an_error_of_openvino_leaves_its_process_running(opened: OpenVinoProcess) -> None:
    with pytest.raises(RuntimeError):
        opened.run(np.zeros((1, 4, 5, 7), np.float32))
    with pytest.raises(RuntimeError):
        OpenVinoProcess().open(b"no model", {})
    assert opened.run(np.ones((1, 3, 1, 1), np.float32))[0].sum() == 6


def test_a_process_that_ended_by_itself_is_told_in_one_line(opened: OpenVinoProcess) -> None:
    opened._child.kill()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^OpenVINO's process has ended \(exit code -9\)"):
            opened.run(np.zeros((1, 3, 5, 7), np.float32))


def test_an_interrupted_call_leaves_no_answer_to_the_next(
    opened: OpenVinoProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    images = np.zeros((1, 3, 5, 7), np.float32)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(program, "receive", interrupted)
        opened.run(images)
    with pytest.raises(ValueError, match="Open the file again"):
        opened.run(images + 1)


def test_the_process_ends_with_what_it_was_started_for() -> None:
    process = OpenVinoProcess()
    pid = process._child.pid
    assert _lives(pid)
    del process
    gc.collect()
    assert not _lives(pid)


def test_a_forked_process_leaves_it_alone(tmp_path: Path) -> None:
    images, kept = np.ones((1, 3, 1, 1), np.float32), [OpenVinoProcess()]
    kept[0].open(_content(), {})

    def in_the_fork() -> None:
        with pytest.raises(ValueError, match="Open the file after the fork"):
            kept[0].run(images)
        kept.clear()
        gc.collect()

    processes.run(tmp_path / "log", in_the_fork)
    assert kept[0].run(images)[0].sum() == 6


def test_a_broken_installation_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('no library for this processor')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        ValueError, match="OpenVINO cannot be loaded: no library for this processor"
    ):
        OpenVinoProcess()
