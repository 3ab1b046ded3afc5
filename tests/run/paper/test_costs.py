import pytest
import torch

from segdistill.models import MODELS, build_model
from segdistill.run.console import render
from segdistill.run.paper import costs
from segdistill.run.paper.costs import cost_table, counted


@pytest.fixture
def two_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: MODELS[name] for name in ("pspnet_r18", "pspnet_r18_half")}
    monkeypatch.setattr(costs, "MODELS", kept)
    counted.cache_clear()


def test_the_table_shows_our_counts_beside_the_published_ones(two_networks: None) -> None:
    text = " ".join(render(cost_table(), 160).split())
    # 13 068 262 parameters and 125.832 G are 0.013 % below 13.07 and 0.026 % above 125.8.
    for row in (
        "PSPNet-R18 (pspnet_r18) 13.07 13.07 −0.01 % 125.8 125.8 +0.03 % Tables 2 and 3",
        "ENet 0.358 not built here 3.612 not built here Table 2",
        "PSPNet-MNV2 2.15 not built here – not built here Table 4",
    ):
        assert row in text


def test_a_network_that_cannot_be_built_on_meta_is_counted(
    two_networks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = counted("pspnet_r18_half")
    assert expected is not None and expected["params"] == pytest.approx(3.271686)

    def looks_at_values(name: str, classes: int) -> torch.nn.Module:
        if torch.get_default_device().type == "meta":
            raise NotImplementedError("no data")
        return build_model(name, classes)

    monkeypatch.setattr(costs, "build_model", looks_at_values)
    counted.cache_clear()
    assert counted("pspnet_r18_half") == expected
