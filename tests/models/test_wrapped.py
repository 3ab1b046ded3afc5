"""Own networks: every form of output, the default taps, and the words when they do not fit."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from segdistill.models import build_model, device_of, network, wrap
from segdistill.models.foreign.relabelled import Relabelled


class Plain(nn.Module):
    """A user's network; `form` picks what it returns."""

    def __init__(self, num_classes: int = 5, form: str = "tensor") -> None:
        super().__init__()
        self.form = form
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, num_classes, 1)
        self.aux_head = nn.Conv2d(8, num_classes, 1)

    def forward(self, x):
        features = self.body(x)
        logits = self.head(features)
        return {
            "tensor": logits,
            "out": {"out": logits, "aux": self.aux_head(features)},
            "logits": {"logits": logits},
            "object": SimpleNamespace(logits=logits),
            "tuple": (logits, features),
            "list": [logits],
            "wrong": {"prediction": logits},
            "classifier": logits.mean((-2, -1)),
        }[self.form]


@pytest.mark.parametrize("form", ["tensor", "out", "logits", "object", "tuple", "list"])
def test_every_form_of_output(form):
    net = Plain(form=form).eval()
    model = wrap(net, num_classes=5, multiple_of=2, align_corners=True)
    x = torch.rand(2, 3, 8, 10)
    assert torch.equal(model(x), net.head(net.body(x)))
    assert (model.multiple_of, model.align_corners, model.num_classes) == (2, True, 5)
    assert network(model) is net
    assert model.spec is None


def test_default_features_are_the_input_of_the_real_classifier():
    model = wrap(Plain(), 5)
    assert model.taps == {"logits": "", "features": "module.head:input"}


def test_default_features_are_read_before_a_dropout_that_leaves_them_alone():
    for inplace, features in ((False, "module.1:input"), (True, "module.2:input")):
        net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(0.5, inplace), nn.Conv2d(8, 5, 1))
        assert wrap(net, 5).taps["features"] == features


def test_own_taps_and_input():
    net = Plain().eval()
    model = wrap(net, 5, taps={"features": "body", "aux": "aux_head"}, input="imagenet")
    assert model.taps == {"logits": "", "features": "module.body", "aux": "module.aux_head"}
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(model(x), net(model.input(x)))


def test_unwrapped_networks_are_left_alone():
    model = build_model("pspnet_r18_half", 2)
    assert wrap(model, 2) is model
    assert network(model) is model
    with pytest.raises(ValueError, match="PSPNet, which declares its own"):
        wrap(model, 2, taps={"features": "psp"})


def test_what_ships_is_the_users_own_module_compiled_or_not():
    net = Plain()
    for module in (net, torch.compile(net)):
        model = wrap(module, 5)
        assert network(model) is net
        assert network(torch.compile(model)) is net
    relabelled = Relabelled(wrap(net, 5), [0, 0, 1, 2, None], 3)
    assert network(relabelled) is relabelled


def test_the_device_of_a_network_is_that_of_its_parameters_or_buffers():
    assert device_of(Plain().to("meta")).type == "meta"
    bare = nn.Module()
    assert device_of(bare).type == "cpu"
    bare.register_buffer("mean", torch.zeros(1, device="meta"))
    assert device_of(bare).type == "meta"


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"Plain has no Conv2d with 9 outputs.*taps=\{"):
        wrap(Plain(), 9)
    with pytest.raises(ValueError, match=r"tap 'features'.*'boddy'.*did you mean 'body'"):
        wrap(Plain(), 5, taps={"features": "boddy"})
    with pytest.raises(ValueError, match=r"30x16; expected multiples of 8 .* Make it 32x16"):
        wrap(Plain(), 5, multiple_of=8)(torch.rand(1, 3, 30, 16))
    with pytest.raises(ValueError, match=r"the output is dict; .* Check num_classes"):
        wrap(Plain(form="wrong"), 5)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"the output is \(1, 5\)"):
        wrap(Plain(form="classifier"), 5)(torch.rand(1, 3, 8, 8))
