"""What a run records of its machine, and which times can be compared."""

from typing import Any

import pytest
import torch

from segdistill.run.environment import describe_environment, differences, timing_differences

BASE = {"machine": "a", "cores": 4, "threads": 2, "device": "cpu", "packages": {"torch": "2.15"}}


def test_the_machine_is_told_apart_but_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "secret-host")
    one = describe_environment(torch.device("cpu"))
    monkeypatch.setattr("platform.node", lambda: "other-host")
    other = describe_environment(torch.device("cpu"))
    assert one["machine"] != other["machine"] and "secret" not in str(one)
    assert timing_differences(one, other) == [f"machine {one['machine']} and {other['machine']}"]


def test_what_only_one_version_records_and_the_load_are_no_change_of_environment() -> None:
    old = {key: value for key, value in BASE.items() if key != "machine"}
    assert differences(old, {**BASE, "load": 3.0}) == []
    assert differences(BASE, {**BASE, "threads": 4}) == ["threads: 2 -> 4"]
    now = {"torch": "2.16", "imagecodecs": "2026.1"}
    assert differences(BASE, {**BASE, "packages": now}) == ["torch: 2.15 -> 2.16"]


def test_an_extra_that_is_installed_later_is_a_change_of_environment() -> None:
    before = {**BASE, "packages": {"imagecodecs": None}}
    now = {**BASE, "packages": {"imagecodecs": "2026.1"}}
    assert differences(before, now) == ["imagecodecs: None -> 2026.1"]
    assert "imagecodecs" in describe_environment(torch.device("cpu"))["packages"]


@pytest.mark.parametrize(
    ("one", "other", "comparable"),
    [
        ({"load": 0.1}, {"load": 3.9}, True),
        ({"load": 4.5}, {"load": 5.0}, True),
        ({"load": 4.0}, {"load": 5.0}, False),
        ({"load": 9.0}, {}, False),
        ({"python": "3.11"}, {"python": "3.12"}, True),
        ({"threads": 1}, {}, False),
    ],
)
def test_times_are_compared_where_nothing_slowed_one_of_them(
    one: dict[str, Any], other: dict[str, Any], comparable: bool
) -> None:
    found = timing_differences({**BASE, **one}, {**BASE, **other})
    assert (found == []) == comparable
    assert (timing_differences({**BASE, **other}, {**BASE, **one}) == []) == comparable
