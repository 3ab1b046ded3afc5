"""A network with random weights: the same for everybody, of a usual scale, and nothing of the old weights."""

import pytest
import torch
from torch import Tensor, nn

from segdistill.data import build_dataset
from segdistill.models import build_model
from segdistill.models.untrained import untrain


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _trained(name: str = "compact", shift: float = 0.0) -> nn.Module:
    """A network whose weights and statistics are not those of a new one."""
    torch.manual_seed(5)
    model = build_model(name, 4)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.3 * torch.rand_like(value) + shift)
    return model.eval()


def test_the_weights_are_always_the_same_and_none_of_the_old_ones() -> None:
    one, other = _trained(), _trained(shift=0.5)
    before = _state(one)
    generator = torch.get_rng_state()
    untrain(one)
    torch.manual_seed(77)
    untrain(other)
    first, second = _state(one), _state(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    changed = [not torch.equal(first[name], before[name]) for name, _ in one.named_parameters()]
    assert all(changed)
    untrain(_trained())
    torch.set_rng_state(generator)
    untrain(one)
    assert torch.equal(torch.get_rng_state(), generator)


def test_statistics_do_not_depend_on_the_order_of_sums() -> None:
    """Other threads add in another order; rounding hides it."""
    threads = torch.get_num_threads()
    states = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model = _trained("pspnet_r18_half")
            untrain(model)
            states.append(_state(model))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("name", ["compact", "pspnet_r18_half", "enet"])
def test_features_have_a_usual_scale_on_scenes(name: str) -> None:
    model = _trained(name)
    untrain(model)
    data = build_dataset("synthetic", split="val", size=(64, 96), count=2)
    images = torch.stack([data[index]["image"] for index in range(2)])
    with torch.no_grad():
        logits = model(images)
    assert 0.05 < logits.std() < 20
    # They differ from place to place: there is something to read, if only noise.
    assert (logits - logits.mean((2, 3), keepdim=True)).std() > 0.01


class Table(nn.Module):
    """A parameter that no layer initialises, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.arange(64.0))
        self.register_buffer("grid", torch.arange(4.0))


def test_other_parameters_are_shuffled_and_buffers_stay() -> None:
    module = Table()
    untrain(module)
    assert not torch.equal(module.places, torch.arange(64.0))
    assert torch.equal(module.places.sort().values, torch.arange(64.0))
    assert torch.equal(module.grid, torch.arange(4.0))


class Single(nn.Module):
    """Computes in float32, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.layer(images.float()))


def test_a_network_that_cannot_compute_in_float64_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Single cannot compute in float64 \(RuntimeError: .*Choose"
    ):
        untrain(Single())
