"""What foreign networks return: where the logits are, and what is undone after them."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.models import build_model, network, wrap
from segdistill.run.shipping.onnx_file import Deployed, OnnxNetwork, file_info, onnx_bytes

Pair = namedtuple("Pair", "aux main")


@dataclass
class Output:
    boundary: Tensor
    heads: Any


class Heads(nn.Module):
    """Returns what `form` makes of two heads, with `end` after them."""

    def __init__(self, num_classes: int = 4, form: str = "main", end: str = "none") -> None:
        super().__init__()
        self.form, self.end = form, end
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.aux = nn.Conv2d(8, num_classes, 1)
        self.main = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> Any:
        features = self.body(images)
        ends = {"softmax": lambda x: x.softmax(1), "log_softmax": lambda x: F.log_softmax(x, 1)}
        end = {**ends, "sigmoid": torch.sigmoid, "none": lambda x: x}[self.end]
        aux, main = end(self.aux(features)), end(self.main(features))
        return {
            "main": main,
            "list": [aux, main, features],
            "named": Pair(aux, main),
            "dict": OrderedDict(aux=aux, main=main),
            "numbered": {0: aux, 1: main},
            "nested": {"deep": [aux], "heads": {"fine": (features, main)}},
            "dataclass": Output(aux, [aux, main]),
            "late": (features, main),
        }[self.form]


IMAGES = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("form", "output"),
    [
        ("list", 1),
        ("list", "1"),
        ("named", 1),
        ("dict", "main"),
        ("numbered", 1),
        ("nested", "heads.fine.1"),
        ("dataclass", "heads.1"),
        ("late", 1),
        ("main", "heads.1"),
    ],
)
def test_logits_are_read_where_they_are_declared(form: str, output: str | int) -> None:
    net = Heads(form=form).eval()
    model = wrap(net, 4, output=output)
    assert torch.equal(model(IMAGES), net.main(net.body(IMAGES)))


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [
        ("dict", None, r"the output is OrderedDict; .*set output to one of aux, main"),
        ("late", None, r"the output is \(2, 8, 4, 6\); .*set output to one of 1"),
        (
            "dict",
            "mian",
            r"output is 'mian'; expected the place of logits of 4 channels.*: aux, main",
        ),
        ("list", 2, r"output is '2'; expected .*: 0, 1"),
        ("nested", "heads.fine.7", r"expected .*: deep.0, heads.fine.1"),
    ],
)
def test_a_place_without_logits_is_refused(form: str, output: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(Heads(form=form), 4, output=output)(IMAGES)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("end", ["softmax", "log_softmax", "sigmoid"])
def test_a_final_activation_is_undone(end: str, classes: int) -> None:
    net = Heads(classes, end=end).eval()
    model = wrap(net, classes, final_activation=end)
    assert network(model) is net
    logits = model(IMAGES)
    before = net.main(net.body(IMAGES))
    if end == "sigmoid":
        torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits.softmax(1), before.softmax(1))
    labels = torch.randint(0, classes, (2, 4, 6), generator=torch.Generator().manual_seed(1))
    gradients = []
    for value in (logits, before):
        net.zero_grad()
        F.cross_entropy(value, labels).backward()
        gradients.append(net.main.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_one_probability_becomes_one_logit_of_two_classes() -> None:
    net = Heads(1, end="sigmoid").eval()
    model = wrap(net, 2, final_activation="sigmoid")
    z = net.main(net.body(IMAGES))
    torch.testing.assert_close(model(IMAGES)[:, 1:], z, rtol=1e-4, atol=1e-5)
    assert not model(IMAGES)[:, 0].any()


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_saturated_probabilities_stay_finite(end: str, dtype: torch.dtype) -> None:
    class Saturated(Heads):
        def forward(self, images: Tensor) -> Tensor:
            p = torch.zeros(1, 4, 2, 2, dtype=dtype)
            p[:, 1] = 1
            return p.requires_grad_()

    logits = wrap(Saturated(), 4, final_activation=end)(IMAGES[:1])
    assert logits.isfinite().all() and (logits.argmax(1) == 1).all()
    assert (logits[:, 1] - logits[:, 0] > 10).all()


def test_recipes_name_the_same_options() -> None:
    options: dict[str, Any] = {"form": "dict", "end": "softmax"}
    told: dict[str, Any] = {"output": "main", "final_activation": "softmax"}
    model = build_model(f"{__name__}.Heads", 4, **options, **told)
    assert (model.output, model.final_activation) == ("main", "softmax")
    assert model.spec is not None and model.spec["options"] == options | told
    again = build_model(model.spec["name"], 4, **model.spec["options"])
    network(again).load_state_dict(network(model).state_dict())
    assert torch.equal(again.eval()(IMAGES), model.eval()(IMAGES))
    with pytest.raises(ValueError, match="output is given for PSPNet, which declares its own"):
        wrap(build_model("pspnet_r18_half", 4), 4, final_activation="softmax")


def test_an_unknown_final_activation_is_refused(unchecked: None) -> None:
    with pytest.raises(
        ValueError, match="no final activation named 'softmaxx'; did you mean 'softmax'"
    ):
        build_model(f"{__name__}.Heads", 4, final_activation="softmaxx")


def test_a_library_network_that_ends_in_an_activation_can_be_declared() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    options = {"encoder_name": "resnet18", "activation": "softmax2d"}
    with pytest.raises(ValueError, match=r"ends in Softmax; .*, or set final_activation"):
        build_model("smp:FPN", 4, **options)
    model = build_model("smp:FPN", 4, **options, final_activation="softmax").eval()
    with torch.no_grad():
        images = torch.rand(1, 3, 32, 32)
        p = network(model)(model.input(images))
        torch.testing.assert_close(model(images).exp(), p)


def test_an_exported_file_undoes_it_as_well() -> None:
    model = wrap(Heads(1, end="sigmoid").eval(), 2, final_activation="sigmoid")
    info = file_info(model, ["a", "b"], [[0, 0, 0]] * 2, None, resize=True, argmax=False)
    deployed = Deployed(model, info).eval()
    with torch.no_grad():
        expected = deployed(IMAGES)
    torch.testing.assert_close(
        OnnxNetwork(onnx_bytes(deployed, 18))(IMAGES), expected, rtol=1e-3, atol=1e-4
    )
