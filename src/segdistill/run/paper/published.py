"""The paper's tables and figures as data; `paper.yaml` holds the published values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from segdistill.names import unknown

COST = ("params", "flops")


@dataclass(frozen=True)
class Row:
    """One row of a table, or one bar or dot of a figure."""

    name: str
    network: str
    """our name of the network that is trained"""
    method: str
    """methods and losses of the catalogue, joined with +"""
    printed: Mapping[str, str]
    """column -> value as printed; columns without a value are absent"""
    note: str | None = None


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of the paper."""

    title: str
    source: str
    data: str
    chart: str
    """bars, dots or classes"""
    columns: Mapping[str, str]
    """key of a column -> heading"""
    notes: Mapping[str, str]
    rows: Sequence[Row]
    elsewhere: bool = False
    """whether runs on other data may fill the same rows, in a separate column"""
    leader: str | None = None
    """network whose IDD result leads all rows; None: that of each row's network"""


def exhibit(name: str) -> Exhibit:
    """Look up a table or figure of the paper by name.

    Raises:
        ValueError: There is no such exhibit; the message names the nearest.
    """
    known: dict[str, Any] = _file()["exhibits"]
    if name not in known:
        raise ValueError(unknown("table or figure", name, known))
    entry = {"notes": {}, **known[name]}
    rows = [_row(values, entry["columns"]) for values in entry["rows"]]
    return Exhibit(**{**entry, "rows": rows})


def networks() -> dict[str, dict[str, str]]:
    """Our name of each network with a published cost -> its name, params, flops and source there."""
    costs: dict[str, dict[str, str]] = _file()["networks"]
    return costs


def _row(values: Mapping[str, str], columns: Mapping[str, str]) -> Row:
    cost = {key: text for key, text in networks().get(values["network"], {}).items() if key in COST}
    everything = {**cost, **values}
    printed = {key: everything[key] for key in columns if key in everything}
    return Row(values["name"], values["network"], values["method"], printed, values.get("note"))


@cache
def _file() -> dict[str, Any]:
    text = files("segdistill.run.paper").joinpath("paper.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content
