"""The optimal one-to-one assignment, against exhaustive search."""

from itertools import permutations

import numpy as np
import pytest

from segdistill.run.auditing.assignment import assignment


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_no_permutation_scores_higher(size: int) -> None:
    generator = np.random.default_rng(size)
    for sparse in (False, True):
        score = generator.random((size, size))
        if sparse:
            score *= generator.random((size, size)) < 0.5
        found = assignment(score)
        assert sorted(found) == list(range(size))
        best = max(sum(score[r, p[r]] for r in range(size)) for p in permutations(range(size)))
        assert sum(score[r, c] for r, c in enumerate(found)) == pytest.approx(best, abs=1e-12)


def test_it_beats_a_greedy_choice() -> None:
    # Choosing 0.9 first leaves 0.1, 1.0 in total; the other way round gives 1.6.
    assert assignment(np.array([[0.9, 0.8], [0.8, 0.1]])) == [1, 0]


def test_a_hidden_order_of_150_classes_is_found() -> None:
    generator = np.random.default_rng(0)
    order = generator.permutation(150)
    score = 0.1 * generator.random((150, 150))
    score[np.arange(150), order] += 0.5
    assert assignment(score) == order.tolist()
