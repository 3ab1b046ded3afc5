"""Weights in the checkpoints that trainers write."""

import argparse
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segdistill.models.files.weights import load_weights


def _net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))


STATE = _net(0).state_dict()
OTHER = _net(1).state_dict()
SETTINGS = argparse.Namespace(lr=0.1)


def _named(prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in STATE.items()}


FORMS: dict[str, dict[str, Any]] = {
    "mmengine": {"meta": {"epoch": 1}, "state_dict": STATE, "message_hub": {"log_scalars": {}}},
    "torchvision": {"model": STATE, "optimizer": {}, "epoch": 1, "args": SETTINGS},
    "lightning": {"state_dict": _named("model."), "hyper_parameters": {"lr": 0.1}},
    "lightning, net": {"state_dict": _named("net."), "callbacks": {}},
    "timm": {"arch": "x", "state_dict": STATE, "state_dict_ema": OTHER, "args": SETTINGS},
    "compiled in DDP": _named("module._orig_mod."),
    "compiled in Lightning": {"state_dict": _named("model._orig_mod.net.")},
    "model_state_dict": {"model_state_dict": STATE, "epoch": 1},
    "averages alone": {"ema": STATE, "epoch": 1},
    "another name": {"net": STATE, "optimizer": {"state": {0: torch.ones(1)}}, "epoch": 1},
    "weights beside averages": {"model": STATE, "model_ema": OTHER},
    "weights beside settings": {"model": {"name": "x"}, "state_dict": STATE, "ema": {"decay": 0.9}},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_weights_of_a_checkpoint_are_found(form: str, tmp_path: Path) -> None:
    torch.save(FORMS[form], tmp_path / "file.pth")
    net = _net(2)
    report = load_weights(net, tmp_path / "file.pth")
    assert report.complete and len(report.matched) == 4
    assert all(torch.equal(value, STATE[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_a_choice_among_several_weights_is_told(
    form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(FORMS[form], tmp_path / "file.pth")
    load_weights(_net(2), tmp_path / "file.pth")
    chosen = {
        "timm": "state_dict and state_dict_ema",
        "weights beside averages": "model and model_ema",
    }
    told = [text for text in caplog.messages if "holds weights under" in text]
    assert len(told) == (form in chosen)
    for text in told:
        both = chosen[form]
        assert f"under {both}; those under {both.split()[0]} are read. To read others" in text


@pytest.mark.parametrize("name", ["last.ckpt", "model_best.pth.tar", "pytorch_model.bin", "a.b.pt"])
def test_files_are_read_as_trainers_call_them(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": STATE}, tmp_path / name)
    assert load_weights(_net(2), tmp_path / name).complete


def test_files_of_other_names_are_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights.tar")
    with pytest.raises(
        ValueError, match=r"is weights\.tar; expected \.safetensors, \.pt, .* or \.bin\."
    ):
        load_weights(_net(2), tmp_path / "weights.tar")


def test_several_sets_under_names_that_say_nothing_are_refused(tmp_path: Path) -> None:
    torch.save({"student": STATE, "teacher": OTHER, "epoch": 1}, tmp_path / "f.pth")
    with pytest.raises(
        ValueError, match=r"f\.pth holds tensors under student and teacher; expected those of one"
    ):
        load_weights(_net(2), tmp_path / "f.pth")


def test_a_file_that_holds_itself_holds_no_tensors(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="holds no tensors"):
        load_weights(_net(2), tmp_path / "file.pth")


def test_a_prefix_that_is_the_networks_own_stays(tmp_path: Path) -> None:
    net = nn.ModuleDict({"model": _net(2)})
    torch.save(_named("model."), tmp_path / "file.pth")
    assert load_weights(net, tmp_path / "file.pth").complete


def test_an_object_of_another_class_is_not_opened_and_named(tmp_path: Path) -> None:
    torch.save({"model": STATE, "args": Fraction(1, 2)}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"it also holds a fractions.Fraction\). Save only"):
        load_weights(_net(2), tmp_path / "file.pth")


@pytest.mark.parametrize("prefix", ["model.", "network.student.", "module.model."])
@pytest.mark.parametrize("further", ["criterion.weight", "n_averaged", "mean"])
def test_what_lies_beside_the_whole_network_is_left_out(
    prefix: str, further: str, tmp_path: Path
) -> None:
    """Such as a LightningModule with buffers, or the averages that torch.optim.swa_utils keeps."""
    torch.save({"state_dict": {further: torch.ones(2), **_named(prefix)}}, tmp_path / "f.pth")
    net = _net(2)
    report = load_weights(net, tmp_path / "f.pth")
    assert report.left_out == [further] and report.complete
    assert all(torch.equal(value, STATE[name]) for name, value in net.state_dict().items())


def test_two_networks_in_a_file_are_not_chosen_from(tmp_path: Path) -> None:
    both = {**_named("student."), **{f"teacher.{name}": value for name, value in OTHER.items()}}
    torch.save({"state_dict": both}, tmp_path / "f.pth")
    with pytest.raises(
        ValueError, match=r"f\.pth has the network under student\. and teacher\.; exp"
    ):
        load_weights(_net(2), tmp_path / "f.pth")


@pytest.mark.parametrize("further", ["model.head.weight", "loss.weight"])
def test_what_a_prefix_does_not_explain_is_reported(further: str, tmp_path: Path) -> None:
    state = {**_named("model."), further: torch.ones(2)}
    if further == "loss.weight":
        del state["model.0.weight"]
    torch.save({"state_dict": state}, tmp_path / "f.pth")
    with pytest.raises(ValueError, match=r"matched; missing .*unexpected [1-9]"):
        load_weights(_net(2), tmp_path / "f.pth")
