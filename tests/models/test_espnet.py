"""ESPNet: its block worked from the paper, its two kinds of logits, and the names in released files."""

import pytest
import torch
from torch import nn

from segdistill.models import build_model, load_weights
from segdistill.models.files.weights import further_outputs
from segdistill.models.networks.espnet import SpatialPyramid, released_options


@pytest.mark.parametrize(("stride", "residual"), [(1, True), (2, False)])
def test_the_block_is_the_papers(stride, residual):
    torch.manual_seed(0)
    block = SpatialPyramid(12 if residual else 7, 12, stride, residual).eval()
    x = torch.randn(1, block.reduce.in_channels, 9, 11)
    with torch.no_grad():
        reduced = block.reduce(x)
        maps = [branch(reduced) for branch in block.branches]
        # 12 channels in five branches: 4 + 2 + 2 + 2 + 2; sums begin at the second.
        assert [m.shape[1] for m in maps] == [4, 2, 2, 2, 2]
        assert [b.dilation[0] for b in block.branches] == [1, 2, 4, 8, 16]
        sums = [maps[0], maps[1], maps[1] + maps[2], maps[1] + maps[2] + maps[3]]
        sums.append(sums[-1] + maps[4])
        joined = torch.cat(sums, 1) + (x if residual else 0)
        torch.testing.assert_close(block(x), block.act(block.norm(joined)))


def test_a_student_meets_its_teacher_at_stride_8():
    torch.manual_seed(0)
    model = build_model("espnet", 6, depth=[1, 1]).eval()
    seen = []
    handle = model.get_submodule(model.taps["logits_distilled"]).register_forward_hook(
        lambda _, __, out: seen.append(out)
    )
    logits = model(torch.rand(1, 3, 64, 80))
    handle.remove()
    assert logits.shape == (1, 6, 64, 80)
    assert seen[0].shape == (1, 6, 8, 10)
    seen[0].sum().backward()
    assert model.encoder.stem[0].weight.grad is not None
    assert model.classifier.weight.grad is None


@pytest.mark.parametrize("name", ["espnet", "espnet_c"])
def test_a_further_output_is_computed_and_cut_off(name):
    torch.manual_seed(0)
    model = build_model(name, 6, depth=[1, 1], extra_outputs=1).eval()
    whole = build_model(name, 7, depth=[1, 1]).eval()
    whole.load_state_dict(model.state_dict(), strict=True)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), whole(x)[:, :6])


def test_two_classes_are_enough():
    model = build_model("espnet", 2, depth=[1, 1]).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64)


def test_an_odd_size_is_that_of_the_image_with_its_edge_repeated():
    torch.manual_seed(0)
    model = build_model("espnet", 3, depth=[1, 1]).eval()
    x = torch.rand(1, 3, 70, 66)
    larger = nn.functional.pad(x, (0, 6, 0, 2), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(larger)[..., :70, :66])


def test_released_names_lead_to_every_tensor(tmp_path):
    torch.manual_seed(0)
    model = build_model("espnet_c", 4, depth=[1, 1])
    theirs = {
        "encoder.stem.0": "level1.conv",
        "encoder.stem.1": "level1.bn",
        "encoder.stem.2": "level1.act",
        "encoder.classifier": "classifier.conv",
    }
    for i in (1, 2, 3):
        theirs |= {f"encoder.join{i}.0": f"b{i}.bn", f"encoder.join{i}.1": f"b{i}.act"}
    for i in (2, 3):
        down, block = f"encoder.down{i}", f"encoder.level{i}.0"
        for ours, kind in ((down, f"level{i}_0"), (block, f"level{i}.0")):
            theirs[f"{ours}.reduce"] = f"{kind}.c1.conv"
            theirs |= {f"{ours}.branches.{n}": f"{kind}.d{2**n}.conv" for n in range(5)}
        theirs |= {f"{down}.norm": f"level{i}_0.bn", f"{down}.act": f"level{i}_0.act"}
        theirs |= {f"{block}.norm": f"level{i}.0.bn.bn", f"{block}.act": f"level{i}.0.bn.act"}
    state = {}
    for key, tensor in model.state_dict().items():
        module, _, kind = key.rpartition(".")
        state[f"{theirs[module]}.{kind}"] = tensor
    assert released_options(state, 3) == {
        "depth": [1, 1],
        "extra_outputs": 1,
        "input": "espnet_cityscapes",
    }
    assert released_options(model.state_dict(), 4) == {}, "our own names say nothing"
    torch.save(state, tmp_path / "theirs.pth")
    twin = build_model("espnet_c", 4, depth=[1, 1])
    report = load_weights(twin, tmp_path / "theirs.pth")
    assert report.complete
    assert len(report.matched) == len(state)
    for key, tensor in model.state_dict().items():
        assert torch.equal(twin.state_dict()[key], tensor), key


def test_a_name_that_leads_nowhere_is_reported_as_the_file_has_it(tmp_path):
    model = build_model("espnet_c", 4, depth=[1, 1])
    state = dict(model.state_dict()) | {"level9.c1.conv.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"unexpected 1 \(level9\.c1\.conv\.weight\)"):
        load_weights(model, tmp_path / "w.pth")


def test_a_file_of_other_classes_is_refused():
    assert further_outputs(20, 20) == 0
    assert further_outputs(20, 19) == 1
    for classes in (18, 21):
        with pytest.raises(ValueError, match=rf"the file has 20 outputs; expected {classes}"):
            further_outputs(20, classes)


@pytest.mark.parametrize("depth", [[2], [0, 3], [1, 2, 3]])
def test_a_depth_that_is_none(depth):
    with pytest.raises(ValueError, match=r"expected two positive integers, such as \[2, 8\]"):
        build_model("espnet", 3, depth=depth)
