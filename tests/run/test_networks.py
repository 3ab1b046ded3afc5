import torch
from safetensors.torch import load
from torch import nn

from segdistill.run.networks import weights_bytes


class _Tied(nn.Module):
    """Two layers of one weight, and a buffer that is a part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight
        self.register_buffer("table", torch.arange(6.0))
        self.register_buffer("part", self.get_buffer("table")[:2])


def test_weights_that_share_memory_are_saved_under_each_name() -> None:
    network = _Tied()
    saved = load(weights_bytes(network))
    assert saved.keys() == network.state_dict().keys()
    torch.testing.assert_close(saved, dict(network.state_dict()), rtol=0, atol=0)
    other = _Tied()
    other.load_state_dict(saved, strict=True)
    assert other.second.weight is other.first.weight
    assert torch.equal(other.second.weight, network.first.weight)
