"""The grid: which trials, in which order, and which of them lie at its edge."""

import pytest

from segdistill.config import TuningConfig
from segdistill.run.tuning.grid import Grid, at_edge


def _factors(trials: int) -> list[tuple[float, float]]:
    grid = Grid.of(TuningConfig(lr=[0.5, 1, 2], weights=[0.3, 1, 3], weight_decay=[0.1, 1, 10]))
    return [(grid.lr[i], grid.weights[j]) for i, j in grid.places(trials)]


def test_trials_go_outwards_from_the_recipe_s_own_settings() -> None:
    assert _factors(9) == [
        (1, 1),
        *((0.5, 1), (1, 0.3), (1, 3), (2, 1)),
        *((0.5, 0.3), (0.5, 3), (2, 0.3), (2, 3)),
    ]


@pytest.mark.parametrize("trials", range(1, 9))
def test_more_trials_hold_the_fewer_ones(trials: int) -> None:
    assert _factors(trials) == _factors(9)[:trials]


def test_the_grid_of_a_control_has_as_many_settings() -> None:
    grid = Grid.of(TuningConfig())
    assert len(grid.other("weights")) == len(grid.other("weight_decay"))
    places = grid.places(25)
    assert len(set(places)) == 25
    assert {(grid.lr[i], grid.other("weight_decay")[j]) for i, j in places[:9]} == {
        (a, b) for a in (0.5, 1, 2) for b in (0.3, 1, 3)
    }


@pytest.mark.parametrize(
    ("chosen", "tried", "edge"),
    [(1, [1], ""), (1, [0.5, 1, 2], ""), (2, [0.5, 1, 2], "highest"), (0.5, [1, 0.5], "lowest")],
)
def test_the_edge_is_that_of_what_was_tried(chosen: float, tried: list[float], edge: str) -> None:
    assert at_edge(chosen, tried) == edge


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lr": [0.5, 2]},
            r"tuning.lr is \[0.5, 2\]; expected factors in ascending order, 1 among",
        ),
        ({"weights": [3, 1, 0.3]}, r"tuning.weights is .*ascending"),
        ({"weights": [1, 1, 3]}, r"tuning.weights is .*ascending"),
        ({"weights": [1, 3]}, r"tuning.weight_decay is .*as many factors as tuning.weights"),
        ({"weights": [1, 2], "weight_decay": [0.5, 1]}, r"1 at the same place"),
    ],
)
def test_a_grid_that_is_not_the_same_for_all_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid.of(TuningConfig(**changes))


@pytest.mark.parametrize("trials", [0, 26])
def test_a_number_of_trials_that_the_grid_does_not_hold_is_refused(trials: int) -> None:
    with pytest.raises(ValueError, match=rf"trials is {trials}; expected 1 to 25"):
        Grid.of(TuningConfig()).places(trials)
