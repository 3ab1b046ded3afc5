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
