"""Input normalisation: the arithmetic by hand, the presets, and what is refused."""

import pytest
import torch

from segdistill.models.input import INPUTS, InputNormalisation, make_input


def _pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def test_imagenet_by_hand():
    out = make_input("imagenet")(_pixel(0.485, 0.456 + 0.224, 0.406 - 0.225))
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 1.0, -1.0]))


def test_caffe_order_and_range_by_hand():
    # Red 1, green 0, blue 0.5 -> B 127.5 - 104.007, G 0 - 116.669, R 255 - 122.679
    out = make_input("caffe_bgr")(_pixel(1.0, 0.0, 0.5))
    torch.testing.assert_close(out.flatten(), torch.tensor([23.493, -116.669, 132.321]))


def test_lite_by_hand():
    out = make_input("lite")(_pixel(0.0, 127 / 255, 1.0))
    torch.testing.assert_close(out.flatten(), torch.tensor([-127 / 128, 0.0, 1.0]))


def test_post_scale_divides_once_more():
    # ESPNet on Cityscapes; blue 0.5 gives (127.5 - 72.392) / 45.319 / 255
    espnet = InputNormalisation(
        (72.392, 82.909, 73.158), (45.319, 46.153, 44.915), "bgr", 255.0, 1 / 255
    )
    out = espnet(_pixel(0.0, 0.0, 0.5)).flatten()
    assert out[0].item() == pytest.approx(0.0047686, rel=1e-4)


@pytest.mark.parametrize("name", INPUTS)
def test_spec_rebuilds_the_same(name):
    first = make_input(name)
    again = make_input(first.spec)
    assert make_input(first) is first
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(first(x), again(x))
    assert again.spec == first.spec
    assert not first.state_dict()


def test_a_name_is_spread_over_other_channels():
    five = make_input("imagenet", 5)
    assert five.spec["mean"] == pytest.approx([(0.485 + 0.456 + 0.406) / 3] * 5)
    assert five.spec["std"] == pytest.approx([(0.229 + 0.224 + 0.225) / 3] * 5)
    assert make_input(five.spec, 5)(torch.rand(2, 5, 4, 6)).shape == (2, 5, 4, 6)
    assert make_input("lite", 1).spec == {**make_input("lite").spec, "mean": [127], "std": [128]}
    with pytest.raises(ValueError, match=r"a mean for 5 channels; expected 4 \(in_channels\)"):
        make_input(five.spec, 4)
    with pytest.raises(ValueError, match="input is BGR; expected 4 channels"):
        make_input("caffe_bgr", 4)


@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match=r"images have the shape \(3, 8, 8\); expected b 3 h w"):
        make_input("imagenet")(torch.rand(3, 8, 8))
    with pytest.raises(
        ValueError, match=r"torch\.uint8; expected floats in 0\.\.1\. Divide by 255"
    ):
        make_input("imagenet")(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="did you mean 'imagenet'"):
        make_input("imagnet")
    with pytest.raises(ValueError, match=r"'order'"):
        make_input({"mean": (0, 0, 0), "std": (1, 1, 1), "ordr": "bgr"})
    with pytest.raises(ValueError, match="no channel order named 'gbr'"):
        make_input({"mean": (0, 0, 0), "std": (1, 1, 1), "order": "gbr"})
    assert "scale=255.0" in repr(make_input("lite"))
    with pytest.raises(ValueError, match="expected mean and std"):
        make_input({"mean": (0, 0, 0)})
    with pytest.raises(ValueError, match=r"std is .*; expected no zero"):
        InputNormalisation((0, 0, 0), (1, 0, 1))
    with pytest.raises(ValueError, match="3 means and 1 stds"):
        InputNormalisation((0, 0, 0), (1,))
