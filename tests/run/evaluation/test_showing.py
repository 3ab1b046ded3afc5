"""Every command gives the network the same input, and so gets the same classes."""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from segdistill.data.folder import Folder
from segdistill.run.commands import evaluate_run, predict_run
from segdistill.run.evaluation.agreement import agreement
from segdistill.run.evaluation.protocol import Protocol, evaluating
from segdistill.run.evaluation.showing import largest_logit, segment, segment_surely, shown
from segdistill.run.evaluation.upsampling import Scratch
from segdistill.run.folder import RunFolder
from segdistill.run.networks import load_run_model
from segdistill.run.reporting.report import report
from segdistill.run.shipping.export import export
from segdistill.run.shipping.server import predict_for_server
from segdistill.run.training.train import train
from tests.run import small

CLASSES = 3
SEEN: list[Tensor] = []
"""Inputs of the networks, in order of calls."""


class Recording(nn.Module):
    """A network that records its input; coarse logits, like most networks."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 5, stride=4, padding=2)
        self.classifier = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and images.device.type != "meta":
            SEEN.append(images.detach().clone())
        return self.classifier(self.body(images).relu())


def _photograph(grey: bool, tag: int | None) -> tuple[Image.Image, Image.Exif]:
    rows, columns = np.mgrid[:61, :83] / 83
    noise = np.random.default_rng(0).random((61, 83, 3)) * 0.2
    picture = np.stack([rows, columns, (rows + columns) / 2], -1) * 0.8 + noise
    image = Image.fromarray((255 * picture).astype(np.uint8))
    exif = Image.Exif()
    if tag is not None:
        exif[0x0112] = tag
    return image.convert("L") if grey else image, exif


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Images and masks; the masks fit the pictures as a viewer shows them."""
    grey, tag = request.param
    image, exif = _photograph(grey, tag)
    size = (61, 83) if tag == 6 else (83, 61)
    ids = (np.arange(size[0] * size[1]) % CLASSES).astype(np.uint8).reshape(size[1], size[0])
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(4):
        # Different files of one picture, as a file in both splits is refused.
        kept = {"quality": 95, "exif": exif, "comment": f"{number}"}
        image.save(tmp_path / "data" / "images" / f"{number}.jpg", **kept)
        Image.fromarray(ids).save(tmp_path / "data" / "masks" / f"{number}.png")
    return tmp_path


def _run(folder: Path, **changes: Any) -> RunFolder:
    options = {"classes": CLASSES, "val_fraction": 0.5, "orientation": "upright"}
    data = {"name": "folder", "root": str(folder / "data"), "options": options}
    data |= changes.pop("data", {})
    student = {"model": f"{__name__}.Recording", "options": changes.pop("options", {})}
    train_keys = {"steps": 2, "crop": [32, 32], "batch": 2, "lr": 0.3}
    recipe = small.recipe(
        data=data, student=student, train=train_keys, out=str(folder / "run"), **changes
    )
    return train(recipe, progress=False)


def _inputs() -> list[Tensor]:
    found = list(SEEN)
    SEEN.clear()
    return found


def _assert_all_equal(tensors: list[Tensor], expected: list[Tensor]) -> None:
    assert tensors, "the network was not called"
    for one in tensors:
        assert any(torch.equal(one, other) for other in expected)


SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "data.size": {"data": {"size": [40, 52]}},
    "multiple_of": {"options": {"multiple_of": 16}},
    "data.size and multiple_of": {"data": {"size": [40, 52]}, "options": {"multiple_of": 16}},
    "window": {"evaluate": {"window": [32, 32], "overlap": 0.25}},
}
# Grey or not, and the orientation tag. The quick run sees each of these and each setting once.
PHOTOGRAPHS = ((False, None), (False, 6), (True, None), (True, 3))
CASES = [
    pytest.param(
        photograph,
        setting,
        marks=() if (i - j) % len(PHOTOGRAPHS) == 0 else pytest.mark.slow,
        id=f"{photograph}-{setting}",
    )
    for i, photograph in enumerate(PHOTOGRAPHS)
    for j, setting in enumerate(SETTINGS)
]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("folder", "setting"), CASES, indirect=["folder"])
def test_every_command_shows_the_network_the_same_image(folder: Path, setting: str) -> None:
    changes = {key: dict(value) for key, value in SETTINGS[setting].items()}
    run = _run(folder, **changes)
    recipe = run.recipe()
    protocol = Protocol.of(recipe)
    file = folder / "data" / "images" / "0.jpg"
    options = {**recipe.data.options, "val_fraction": 0.0}
    dataset = Folder(recipe.data.root, "train", **options)
    model = load_run_model(run)
    SEEN.clear()
    with evaluating(model):
        ids = segment(model, {"image": dataset.read(0)[0]}, protocol)
    expected = _inputs()
    logits = _margin(model, dataset, protocol, tuple(ids.shape))

    evaluate_run(str(run.path), "model", None, {}, "cpu", absent=None)
    _assert_all_equal(_inputs()[: len(expected)], expected)  # then its latency is measured
    agreement(model, dataset, model, protocol)
    _assert_all_equal(_inputs(), expected)
    predict_run(str(run.path), [str(file)], str(folder / "masks"), "model", "cpu", None)
    _assert_all_equal(_inputs(), expected)
    dataset.server_ids = tuple(range(CLASSES))
    predict_for_server(model, dataset, folder / "server", protocol)
    _assert_all_equal(_inputs(), expected)
    for written in (folder / "masks" / "0.png", folder / "server" / "0.png"):
        assert np.array_equal(np.array(Image.open(written)), ids.numpy())
    report([run.path], folder / "report.html", latency=False)
    whole = shown(dataset.read(0)[0], protocol, int(model.multiple_of))
    _assert_all_equal(_inputs(), [*expected, whole])
    if setting != "window":
        _assert_file_agrees(run, file, ids, logits, folder)


def _margin(model: nn.Module, dataset: Folder, protocol: Protocol, size: tuple[int, int]) -> Tensor:
    """Difference between the two largest logits of each pixel."""
    image = shown(dataset.read(0)[0], protocol, int(model.multiple_of))
    with evaluating(model):
        logits = nn.functional.interpolate(model(image), image.shape[-2:], mode="bilinear")
    if protocol.size is None:
        logits = logits[..., : size[0], : size[1]]
    else:
        logits = logits[..., : protocol.size[0], : protocol.size[1]]
    logits = nn.functional.interpolate(logits, size, mode="bilinear")
    best = logits[0].topk(2, dim=0).values
    SEEN.clear()
    return best[0] - best[1]


def _assert_file_agrees(
    run: RunFolder, file: Path, ids: Tensor, margin: Tensor, folder: Path
) -> None:
    """The exported file run by `predict` and by the exported script."""
    bundle = export(run)
    predict_run(str(bundle), [str(file)], str(folder / "by_file"), "model", "cpu", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["infer.py", str(file)])
        runpy.run_path(str(bundle / "infer.py"), run_name="__main__")
    clear = margin > 1e-3
    assert float(clear.float().mean()) > 0.9
    for written in (folder / "by_file" / "0.png", folder / "0_mask.png"):
        found = torch.from_numpy(np.array(Image.open(written)).astype(np.int64))
        assert torch.equal(found[clear], ids[clear]), written


def test_uint8_and_floating_point_images_give_the_same_input() -> None:
    image = torch.randint(0, 256, (3, 9, 11), dtype=torch.uint8)
    protocol = Protocol(size=(5, 7))
    assert torch.equal(shown(image, protocol, 4), shown(image.float() / 255, protocol, 4))
    assert shown(image, protocol, 4).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("shape", [(1, 5, 7), (2, 3, 9), (19, 8, 33), (300, 4, 17), (5, 0, 3)])
def test_the_largest_logit_is_the_first_of_equal_ones(shape: tuple[int, int, int]) -> None:
    logits = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(0)).float()
    scratch = Scratch()
    for seen in (logits, logits - 1e30, logits.flip(0), logits.transpose(1, 2)):
        values, classes = largest_logit(seen, scratch)
        first = (seen == seen.amax(0)).long().argmax(0)
        assert torch.equal(classes, first)
        assert torch.equal(values, seen.amax(0))


class Fixed(nn.Module):
    """A network that returns the same logits whatever it is shown."""

    align_corners = False

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize("size", [(8, 8), (32, 40), (5, 6)])
@pytest.mark.parametrize("read", [segment, segment_surely])
def test_an_excluded_class_is_never_predicted_and_changes_no_other(read: Any, size: Any) -> None:
    logits = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    image = {"image": torch.zeros(3, *size)}
    excluded = logits.clone()
    excluded[:, 2] = -torch.inf
    found = read(Fixed(excluded), image, Protocol(scales=(1.0, 1.5)), 4)
    others = read(Fixed(logits[:, [0, 1, 3]]), image, Protocol(scales=(1.0, 1.5)), 3)
    if read is segment:
        found, others = (found,), (others,)
    assert torch.equal(found[0], torch.tensor([0, 1, 3])[others[0]])
    for one, other in zip(found[1:], others[1:], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("read", [segment, segment_surely])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_logits_that_are_not_finite_are_refused(bad: float, read: Any, average: Any) -> None:
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 1 if bad != -torch.inf else slice(None), 0, 0] = bad
    with pytest.raises(ValueError, match=r"not finite at \d+ of 64 pixels; expected finite"):
        read(Fixed(logits), {"image": torch.zeros(3, 8, 8)}, Protocol(average=average))


def test_the_map_of_an_image_is_not_overwritten_by_the_next() -> None:
    images = [torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    model = Recording()
    protocol = Protocol(flip=True, window=(24, 32), strip_bytes=5000)
    with evaluating(model):
        kept = [segment_surely(model, {"image": image}, protocol) for image in images]
        alone = [segment_surely(model, {"image": image}, protocol) for image in reversed(images)]
    for one, other in zip(kept, reversed(alone), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert not torch.equal(kept[0][1], kept[1][1])
