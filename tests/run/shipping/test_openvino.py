"""OpenVINO in a process of its own."""

import gc
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from segdistill.run.shipping.openvino import program
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


def test_importing_it_sends_no_usage_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text("open(__file__ + '.sent', 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    OpenVinoProcess().open(_content(), {})
    assert not (package / "__init__.py.sent").exists()


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
