"""The position probe against an explicit fit, and on features that are known to hold a place or not."""

import numpy as np
import pytest
import torch

from segdistill.geometry import Cells
from segdistill.run.evaluation.positions import PositionProbe, _along

GRID = (16, 24)
IMAGE = (61, 93)


def probed(maps: list[torch.Tensor], image: tuple[int, int] = IMAGE, stride: int = 4):
    probe = PositionProbe(len(maps))
    for features in maps:
        size = (features.shape[1], features.shape[2])
        padded = ((size[0] - 1) * stride + 1, (size[1] - 1) * stride + 1)
        probe.add(features.double(), Cells.at(size, padded, stride), image)
    return probe.r2()


def noise(count: int, channels: int = 3, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(channels, *GRID, generator=generator) for _ in range(count)]


def places() -> torch.Tensor:
    y, x = torch.meshgrid(
        torch.linspace(0, 1, GRID[0]), torch.linspace(0, 1, GRID[1]), indexing="ij"
    )
    return torch.stack([x, y])


def test_features_that_hold_a_place_and_those_that_do_not() -> None:
    """x is read but for the noise of its channel, of which the share is 1 - R²; y is nowhere."""
    maps = [torch.cat([one, places()[:1] + 0.05 * one[:1]]) for one in noise(8)]
    maps = [torch.cat([one[1:3], one[3:]]) for one in maps]  # not the noise that would undo it
    found = probed(maps)
    assert found is not None
    variance = (GRID[1] ** 2 - 1) / (12 * (GRID[1] - 1) ** 2)  # of x over all cells
    expected = 1 - 0.05**2 / (variance + 0.05**2)
    everywhere = (found["border"][0] + found["interior"][0]) / 2
    assert everywhere == pytest.approx(expected, abs=0.02) and found["interior"][0] > 0.9
    assert max(found["border"][1], found["interior"][1]) < 0.02


@pytest.mark.parametrize(("cells", "pixels"), [(14, 55), (15, 59), (65, 513), (30, 240)])
def test_rounding_leaves_no_cell_out_where_the_outer_cells_lie_on_the_corners(
    cells: int, pixels: int
) -> None:
    line = Cells.by_corners((cells, cells), (pixels, pixels)).rows
    _, inside, rim = _along(line, pixels)
    assert inside.all() and rim[0] and rim[-1]
    assert int(_along(line, pixels - 1)[1].sum()) == cells - 1


def test_padding_tells_the_place_at_the_border_only() -> None:
    """A channel that marks the first two columns."""
    maps = noise(8)
    for one in maps:
        one[0, :, :3] += 30
    found = probed(maps)
    assert found is not None
    assert found["border"][0] > found["interior"][0] + 0.1


def test_it_is_fitted_to_one_half_and_scored_on_the_other() -> None:
    """Each half holds x in its own way: what was fitted to one is wrong on the other."""
    maps = [one * 0.01 for one in noise(8)]
    for index, one in enumerate(maps):
        one[0] += places()[0] * (1 if index < 4 else -1)
    found = probed(maps)
    assert found is not None and found["interior"][0] < -1


def test_agrees_with_an_explicit_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(5, 3, generator=generator)
    maps = []
    for one in noise(5, 5, seed=1):
        mixed = torch.einsum("ck,khw->chw", mixing[:, :2], places()) + 0.3 * one
        maps.append(mixed * torch.tensor([1.0, 1e3, 1e-3, 7.0, 1.0])[:, None, None] + 5)
    image = (57, 93)  # the last row of cells lies on padding
    found = probed(maps, image)
    rows, columns = np.meshgrid(np.arange(16) * 4, np.arange(24) * 4, indexing="ij")
    on_it = rows <= 56
    truth = np.stack([columns / 92, rows / 56], -1)
    rim = (rows < 8) | (rows >= 13 * 4) | (columns < 12) | (columns >= 21 * 4)
    wrong, spread = {}, {}
    for fitted, scored in ((range(3, 5), range(3)), (range(3), range(3, 5))):
        f = np.concatenate([maps[i].double().numpy()[:, on_it].T for i in fitted])
        y = np.concatenate([truth[on_it]] * len(fitted))
        mean, std, middle = f.mean(0), f.std(0), y.mean(0)
        z = (f - mean) / std
        weight = np.linalg.solve(z.T @ z / len(z) + 1e-4 * np.eye(5), z.T @ (y - middle) / len(z))
        for name, zone in (("border", rim & on_it), ("interior", ~rim & on_it)):
            f = np.concatenate([maps[i].double().numpy()[:, zone].T for i in scored])
            y = np.concatenate([truth[zone]] * len(scored))
            error = ((f - mean) / std @ weight + middle - y) ** 2
            wrong[name] = wrong.get(name, 0) + error.sum(0)
            spread[name] = spread.get(name, 0) + ((y - y.mean(0)) ** 2).sum(0)
    assert found is not None
    for name, values in found.items():
        assert values == pytest.approx(1 - wrong[name] / spread[name], abs=1e-6)


def test_a_constant_channel_is_harmless() -> None:
    maps = [torch.cat([one, places()]) for one in noise(4)]
    dead = [torch.cat([one, torch.full((1, *GRID), 4.0)]) for one in maps]
    first, second = probed(maps), probed(dead)
    assert first is not None and second is not None
    assert first["interior"] == pytest.approx(second["interior"], abs=1e-6)
    assert first["interior"][0] > 0.999


@pytest.mark.parametrize("maps", [[], noise(1)])
def test_fewer_than_two_images_have_no_figure(maps: list[torch.Tensor]) -> None:
    assert probed(maps) is None


def test_a_map_without_an_interior_has_no_figure() -> None:
    assert probed([torch.randn(2, 2, 2) for _ in range(4)], (5, 5)) is None
