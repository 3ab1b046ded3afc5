"""The optimal one-to-one assignment of the teacher's classes to the data's."""

import numpy as np


def assignment(score: np.ndarray) -> list[int]:
    """The column of each row, no column twice, that maximises the sum of the scores.

    Shortest augmenting paths with potentials (Jonker and Volgenant, Computing 38, 1987). The inner
    step handles all columns at once: at most k² such steps, a quarter of a second for 150 classes.

    Args:
        score: Square and finite.

    Example:
        >>> assignment(np.array([[0.9, 0.8], [0.8, 0.1]]))
        [1, 0]
    """
    size = len(score)
    cost = -np.asarray(score, dtype=np.float64)
    row_of = np.full(size, -1)
    rows, columns = np.zeros(size), np.zeros(size)  # the potentials
    for root in range(size):
        shortest = np.full(size, np.inf)
        before = np.full(size, -1)  # the column that precedes on the path; -1: the root's row
        done = np.zeros(size, dtype=bool)
        row, length, last = root, 0.0, -1
        while row >= 0:
            through = length + cost[row] - rows[row] - columns
            nearer = ~done & (through < shortest)
            shortest[nearer], before[nearer] = through[nearer], last
            last = int(np.where(done, np.inf, shortest).argmin())
            done[last], length, row = True, float(shortest[last]), int(row_of[last])
        slack = np.where(done, length - shortest, 0.0)
        columns -= slack
        matched = done & (row_of >= 0)
        rows[row_of[matched]] += slack[matched]
        rows[root] += length
        while last >= 0:
            row_of[last] = row_of[before[last]] if before[last] >= 0 else root
            last = int(before[last])
    return [int(column) for column in np.argsort(row_of)]
