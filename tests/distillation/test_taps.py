import pytest
import torch
from torch import nn

from segdistill.distillation.taps import Taps


class Small(nn.Module):
    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU(inplace=inplace)
        self.head = nn.Conv2d(4, 2, 1)
        self.spare = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.head(self.act(self.body(x)))}


def test_a_tap_reads_the_output_of_its_module() -> None:
    network = Small()
    taps = Taps(network, {"features": "body", "logits": "", "before": "head:input"})
    images = torch.randn(2, 3, 5, 7)
    out = network(images)["out"]
    read = taps.collect()
    torch.testing.assert_close(read["features"], network.body(images))
    torch.testing.assert_close(read["before"], network.act(network.body(images)))
    assert read["logits"] is out


def test_a_closed_tap_leaves_no_hook_behind() -> None:
    network = Small()
    with Taps(network, {"features": "body", "before": "head:input"}):
        assert network.body._forward_hooks
    assert not network.body._forward_hooks
    assert not network.head._forward_pre_hooks


def test_an_unknown_path_names_the_nearest_module() -> None:
    with pytest.raises(ValueError, match=r"tap 'features'.*'bodi'.*did you mean 'body'"):
        Taps(Small(), {"features": "bodi"})


def test_only_input_may_follow_the_colon() -> None:
    with pytest.raises(ValueError, match="only 'input'"):
        Taps(Small(), {"features": "body:output"})


def test_a_tap_that_was_not_reached_is_refused() -> None:
    network = Small()
    taps = Taps(network, {"features": "spare"})
    network(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"'features' at 'spare' was not reached"):
        taps.collect()


def test_a_tap_is_never_read_twice() -> None:
    network = Small()
    taps = Taps(network, {"features": "body"})
    network(torch.zeros(1, 3, 2, 2))
    taps.collect()
    with pytest.raises(ValueError, match="was not reached"):
        taps.collect()


def test_a_tensor_changed_in_place_after_its_tap_is_refused() -> None:
    network = Small(inplace=True)
    taps = Taps(network, {"features": "body"})
    network(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="changed in place"):
        taps.collect()


def test_a_tap_without_a_tensor_is_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, str]:
            return {"text": "none"}

    network = Odd()
    Taps(network, {"features": ""})
    with pytest.raises(ValueError, match="gives no tensor"):
        network(torch.zeros(1))
