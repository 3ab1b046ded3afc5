"""The costs of the paper's networks, as published and as counted here by the same rule."""

from functools import cache

import torch
from rich.table import Table

from segdistill.models import MODELS, build_model
from segdistill.run.evaluation.profile import profile
from segdistill.run.paper.published import networks
from segdistill.run.reporting import signed

CLASSES, SIZE = 19, (512, 1024)
"""The paper's setting, Cityscapes; it prints the same costs for 150 classes."""


@cache
def counted(network: str) -> dict[str, float] | None:
    """Parameters in millions and multiply-adds in 10^9 of a network, including the auxiliary head.

    Counted as in `profile(..., count="paper")`, on the meta device if the network can be built there.

    Args:
        network: A name of `MODELS`.

    Returns:
        `params` and `flops`; None if there is no such network.
    """
    if network not in MODELS:
        return None
    try:
        with torch.device("meta"):
            model = build_model(network, CLASSES)
    except (RuntimeError, NotImplementedError):
        # The network's constructor depends on the values of its weights.
        model = build_model(network, CLASSES)
    measured = profile(model, SIZE, count="paper", latency=False)
    counts = {"params": (measured.parameters, 1e6), "flops": (measured.multiply_adds, 1e9)}
    return {name: value / unit for name, (value, unit) in counts.items() if value is not None}


def cost_table() -> Table:
    """Parameters and multiply-adds of the paper's networks: published, counted here, and their difference."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("network", no_wrap=True)
    for unit in ("params, M", "FLOPs, G"):
        for heading in (f"{unit}\npublished", "\ncounted", "\ndifference"):
            table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("published in", no_wrap=True)
    for network, printed in networks().items():
        ours = counted(network)
        cells = [
            text
            for key in ("params", "flops")
            for text in _cells(printed.get(key), None if ours is None else ours[key])
        ]
        name = printed["name"] if ours is None else f"{printed['name']} ({network})"
        table.add_row(name, *cells, printed["source"])
    return table


def _cells(printed: str | None, ours: float | None) -> tuple[str, str, str]:
    if ours is None:
        return printed or "–", "not built here", ""
    difference = "" if printed is None else f"{signed(100 * (ours / float(printed) - 1), 2)} %"
    return printed or "–", digits(ours), difference


def digits(value: float) -> str:
    """Four significant digits, as the paper prints."""
    return f"{value:#.4g}"
