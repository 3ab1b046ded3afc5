"""Whether a poor teacher is asked if it is misread."""

import pytest

from segdistill.run.auditing.teacher import judged


@pytest.mark.parametrize(
    ("percent", "record", "thorough", "asked"),
    [
        (30.6, 30.6, True, False),  # as good as its own run recorded
        (30.6, 50.0, True, True),
        (30.6, 50.0, False, True),
        (60.0, None, True, True),
        (60.0, None, False, False),
    ],
)
def test_a_teacher_that_meets_its_own_record_is_not_asked(
    percent: float, record: float | None, thorough: bool, asked: bool
) -> None:
    calls = []
    judged(percent, None, None, record, lambda: calls.append(1), thorough)
    assert bool(calls) == asked
