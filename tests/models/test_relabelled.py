"""A teacher's classes as the data's: what its probabilities become, and what is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from segdistill.models import wrap
from segdistill.models.foreign.relabelled import Relabelled, resolve_labels


def _network(classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, classes, 1))
    return wrap(body, classes, align_corners=True, multiple_of=2)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1))


def test_probabilities_are_summed_left_out_and_scaled(images: torch.Tensor) -> None:
    network = _network()
    p = network(images).softmax(1)
    # Class 0 is made of 1 and 3, class 1 is class 0, class 2 is left out.
    expected = torch.stack([p[:, 1] + p[:, 3], p[:, 0]], 1) / (1 - p[:, 2:3])
    mapped = Relabelled(network, [1, 0, None, 0], 2)
    torch.testing.assert_close(mapped(images).softmax(1), expected)
    assert (mapped.num_classes, mapped.align_corners, mapped.multiple_of) == (2, True, 2)


def test_a_reordering_changes_no_value(images: torch.Tensor) -> None:
    network = _network()
    mapped = Relabelled(network, [2, 0, 3, 1], 4)
    assert torch.equal(mapped(images), network(images)[:, [1, 3, 0, 2]])


def test_merged_logits_are_finite_however_sure_the_network_is(images: torch.Tensor) -> None:
    network = _network()
    with torch.no_grad():
        network.module[2].weight.mul_(1e4)
    assert torch.isfinite(Relabelled(network, [0, 0, 0, 1], 2)(images)).all()


def test_taps_are_the_networks_own_but_for_its_classes() -> None:
    network = _network()
    network.taps |= {"aux": "module.0", "logits_coarse": "module.2", "image": ":input"}
    paths = Relabelled(network, [0, 1, 2, 0], 3).taps
    assert paths == {"logits": "", "features": "module.module.2:input", "image": "module:input"}
    assert paths["features"].split(":")[0] in dict(
        Relabelled(network, [0, 0, 0, 0], 1).named_modules()
    )


NAMES = ["road", "vehicle"]


def test_names_and_ids_say_the_same() -> None:
    by_name = {"car": "vehicle", "street": "road", "sky": None}
    assert resolve_labels(by_name, NAMES) == [1, 0, None]
    assert resolve_labels({1: 0, 0: 1, 2: None}, NAMES) == [1, 0, None]
    known = ["car", "street", "sky"]
    turned = dict(reversed(by_name.items()))
    assert resolve_labels(turned, NAMES, known) == [1, 0, None]
    assert resolve_labels({"car": 1, "street": "0", "2": None}, NAMES, known) == [1, 0, None]


@pytest.mark.parametrize(
    ("labels", "known", "message"),
    [
        ({"a": "raod", "b": 1}, None, "no class of the data named 'raod'; did you mean 'road'"),
        (
            {"cat": 0, "b": 1},
            ["car", "b"],
            "no class of the teacher named 'cat'; did you mean 'car'",
        ),
        ({0: 0, 1: 2}, None, "has the id 2; expected the id of a class of the data, 0 to 1"),
        ({0: 0, 5: 1}, None, "has the id 5; expected the id of a class of the teacher, 0 to 1"),
        ({"a": 0, 0: 1}, ["a", "b"], "names the teacher's class 'a' twice"),
        ({"a": 0}, ["a", "b"], r"lacks 1 of the teacher's 2 classes \(b\): .*null"),
        ({"a": 0, "b": None}, None, "no class of the teacher stands for vehicle"),
    ],
)
def test_what_does_not_add_up_is_said(
    labels: dict[Any, Any], known: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        resolve_labels(labels, NAMES, known)
    assert "\n" not in str(error.value)
