"""The mappings proposed for the ids and colours in masks."""

import pytest
import yaml

from segdistill.data.label_map import LabelMap
from segdistill.data.published.camvid import CLASSES as CAMVID
from segdistill.data.published.cityscapes import LABEL_IDS
from segdistill.run.auditing.proposal import propose, propose_colours


def _code(red: int, green: int, blue: int) -> int:
    return (red << 16) + (green << 8) + blue


@pytest.mark.parametrize(
    ("ids", "classes", "mapping"),
    [
        ([0, 255], 2, {0: 0, 255: 1}),
        ([0, 255], None, {0: 0, 255: 1}),
        ([0, 1, 255], 2, None),
        ([0, 2], 3, None),
        ([1, 2, 3, 255], 3, {1: 0, 2: 1, 3: 2, 255: None}),
        ([1, 2, 3], None, {1: 0, 2: 1, 3: 2}),
        ([0, 1, 2], None, None),
        ([0, 128, 255], 3, {0: 0, 128: 1, 255: 2}),
        ([10, 20, 255], 2, {10: 0, 20: 1, 255: None}),
    ],
)
def test_a_mapping_is_proposed_for_ids(
    ids: list[int], classes: int | None, mapping: dict[int, int | None] | None
) -> None:
    (proposal,) = propose(ids, classes)
    assert proposal.mapping == mapping
    LabelMap(proposal.mapping, proposal.classes)


def test_with_one_id_too_many_the_first_or_the_last_may_be_unlabelled() -> None:
    first, last = propose([0, 1, 2, 3], 3)
    assert first.mapping == {0: None, 1: 0, 2: 1, 3: 2}
    assert last.mapping == {0: 0, 1: 1, 2: 2, 3: None}


def test_the_label_ids_of_cityscapes_are_recognised() -> None:
    for classes in (19, None):
        (proposal,) = propose([0, 1, 3, 4, *LABEL_IDS], classes)
        assert proposal.classes == 19
        assert proposal.mapping is not None
        assert len(proposal.mapping) == 34
        # cityscapesScripts: road 7 -> 0, car 26 -> 13, bicycle 33 -> 18; 0 unlabelled, 29 caravan.
        assert [proposal.mapping[i] for i in (7, 26, 33, 0, 29)] == [0, 13, 18, None, None]
    # One stray id does not turn train ids into label ids.
    assert propose([*range(19), 30], 19) == []


def test_the_yaml_is_valid_in_a_recipe() -> None:
    (proposal,) = propose([0, 255], 3 - 1)
    assert yaml.safe_load(proposal.yaml(["no", "yes"])) == {"mapping": {0: 0, 255: 1}}
    (proposal,) = propose_colours([0, 0x800000, 0x804080], None)
    pasted = yaml.safe_load(proposal.yaml())
    assert pasted["classes"] == 3
    assert LabelMap(pasted["mapping"], 3).by_colour


def test_known_and_declared_palettes_set_the_order() -> None:
    codes = [_code(*colour) for colour in CAMVID.values()]
    (proposal,) = propose_colours([*codes[:8], 0], 11)
    assert proposal.mapping is not None
    assert proposal.mapping["#804080"] == 3  # road
    assert proposal.mapping["#000000"] is None
    (proposal,) = propose_colours([5, 9, 7], 2, [(0, 0, 9), (0, 0, 5)])
    assert proposal.mapping == {"#000009": 0, "#000005": 1, "#000007": None}


def test_unknown_colours_are_numbered_unless_there_are_too_many() -> None:
    (proposal,) = propose_colours([0, 0xFFFFFF], 2)
    assert proposal.mapping == {"#000000": 0, "#ffffff": 1}
    (proposal,) = propose_colours([0, 0x0A0000, 0x00000B], 2)
    assert proposal.mapping == {"#000000": None, "#00000b": 0, "#0a0000": 1}
    assert propose_colours(range(100), None) == []


def _propose(pixels: dict[int, int], classes: int | None) -> list[tuple[object, ...]]:
    return [(p.mapping, p.threshold, p.tolerance) for p in propose(pixels, classes, pixels)]


BLACK_AND_WHITE = (None, 128, 0)


@pytest.mark.parametrize("classes", [2, None])
def test_light_values_around_black_and_white_are_noise(classes: int | None) -> None:
    assert _propose({0: 5000, 1: 30, 255: 900}, classes)[0] == BLACK_AND_WHITE
    noise = {0: 5000, 1: 400, 2: 80, 3: 20, 250: 9, 253: 60, 254: 200, 255: 1500}
    assert _propose(noise, classes) == [BLACK_AND_WHITE]
    assert _propose({20: 700, 21: 9, 200: 300, 198: 4}, classes) == [(None, 110, 0)]


def test_255_is_ignored_where_1_has_pixels_of_its_own() -> None:
    for classes in (2, None):
        assert _propose({0: 5000, 1: 300, 255: 900}, classes) == [(None, None, 0)]
    # In doubt both readings are shown, the likelier first.
    doubtful = _propose({0: 5000, 1: 30, 255: 900}, 2)
    assert doubtful == [BLACK_AND_WHITE, ({0: 0, 1: 1, 255: None}, None, 0)]
    assert _propose({0: 9700, 1: 20, 2: 20, 3: 20, 255: 150}, None) == [(None, None, 0)]


def test_noise_around_three_ids_needs_a_tolerance() -> None:
    noise = {0: 500, 1: 90, 3: 9, 118: 20, 120: 400, 121: 60, 237: 8, 239: 30, 240: 200}
    (proposal,) = propose(noise, 3, noise)
    assert proposal.mapping == {0: 0, 120: 1, 240: 2}
    label_map = LabelMap(proposal.mapping, 3, tolerance=proposal.tolerance)
    assert label_map.declared[list(noise)].all()
    assert "tolerance: 8\nmapping:\n" in proposal.yaml(["a", "b", "c"])


def test_noise_never_becomes_a_class() -> None:
    # As many values as classes, but one is a trace beside another.
    assert propose([0, 254, 255], 3, {0: 5000, 254: 3, 255: 900}) == []
    assert propose(range(0, 250, 6), None, dict.fromkeys(range(0, 250, 6), 10)) == []
    # A rare id that lies apart stays a class.
    (proposal,) = propose([0, 100, 200], 3, {0: 90000, 100: 5000, 200: 3})
    assert proposal.mapping == {0: 0, 100: 1, 200: 2}


def test_an_id_too_many_that_is_rare_is_rather_the_unlabelled_one() -> None:
    first, _ = propose(range(4), 3, {0: 5000, 1: 900, 2: 800, 3: 2})
    assert first.mapping == {0: 0, 1: 1, 2: 2, 3: None}
