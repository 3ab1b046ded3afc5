"""Networks by name: what is refused, and in which words."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from segdistill.models import build_model


@pytest.fixture
def own_package(monkeypatch):
    """An importable module `my_networks`, as a user would have one."""

    class Small(nn.Sequential):
        def __init__(self, num_classes: int, width: int = 4, note=None) -> None:
            super().__init__(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, num_classes, 1))

    module = ModuleType("my_networks")
    module.Small, module.number, module.none = Small, int, lambda: None
    monkeypatch.setitem(sys.modules, "my_networks", module)


def test_own_network_by_its_import_path(own_package):
    model = build_model("my_networks.Small", 6, width=5, input="imagenet", multiple_of=4)
    assert model.eval()(torch.rand(1, 3, 8, 8)).shape == (1, 6, 6, 6)
    assert model.taps["features"] == "module.2:input"
    assert model.multiple_of == 4
    assert model.spec["options"]["width"] == 5
    twin = build_model(model.spec["name"], 6, **model.spec["options"])
    assert twin.input.spec == model.input.spec


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pspnet_r19", {}, r"no model named 'pspnet_r19'; did you mean 'pspnet_r18'"),
        ("pspnett:resnet18", {}, r"no model named 'pspnett'; did you mean 'pspnet'"),
        ("timm:resnet18", {}, r"use pspnet:resnet18 or deeplabv3plus:resnet18"),
        ("pspnet", {}, r"pspnet has no encoder; .*pspnet:resnet18"),
        ("deeplabv3plus", {}, r"deeplabv3plus has no encoder"),
        ("pspnet_r18:resnet18", {}, r"pspnet_r18 has its own encoder; use pspnet_r18"),
        ("pspnet:resnet18", {"head_with": 3}, r"option of pspnet named 'head_with'.*'head_width'"),
        ("pspnet:resnet18", {"weights": "x/y.pth"}, r"no weights file at x/y\.pth"),
        ("my_networks.Smal", {}, r"in my_networks named 'Smal'; did you mean 'Small'\?"),
        ("my_networks.Small", {"widht": 3}, r"option of my_networks\.Small .* mean 'width'"),
        (
            "my_networks.Small",
            {"width": "4"},
            r"my_networks\.Small: option width is '4'; expected an integer",
        ),
        (
            "my_networks.number",
            {},
            r"'my_networks\.number' is the class builtins\.int; expected a sub",
        ),
        ("my_networks.none", {}, r"none' is a function; .* Annotate it, or set factory: true"),
        ("my_networks.none", {"factory": True}, r"none made a NoneType; expected an nn\.Module"),
        ("my_networks.Small", {"note": torch.tensor(4)}, r"are not plain values .*wrap\(\) it"),
    ],
)
def test_slips_are_answered_in_one_line(own_package, name, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        build_model(name, 4, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [0, -1, 2.0, True])
@pytest.mark.usefixtures("unchecked")
def test_class_counts_that_are_none(classes):
    with pytest.raises(ValueError, match=r"num_classes is .*; expected a positive integer"):
        build_model("pspnet_r18_half", classes)
