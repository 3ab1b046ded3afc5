"""DIST: the student's class probabilities correlate with the teacher's, row by row."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from segdistill.losses.base import Loss, check_pair, not_negative, positive
from segdistill.losses.cosine import unit_vectors


class CorrelationKD(Loss):
    """One minus the Pearson correlation of the class probabilities, by pixel and by class.

    Huang et al., "Knowledge Distillation from A Stronger Teacher" (NeurIPS 2022,
    https://arxiv.org/abs/2205.10536). With p = softmax(z / T), all B·H·W positions of the batch are
    the rows of one matrix of K columns, as in the authors' segmentation code:

    - *inter-class*: each row, the K probabilities of one position, is correlated with the
      teacher's; mean over the rows;
    - *intra-class*: each column, the probabilities of one class at all positions of the whole batch
      (not of one image) is correlated with the teacher's; mean over the columns. Where a batch is
      split (`train.accumulate`, several processes), a column is that of a part.

    The loss is T² · (beta · (1 - inter) + gamma · (1 - intra)), each bracket in 0..2. Every
    position counts, labelled or not. Correlations are means already: the value depends on neither
    batch size, resolution nor number of classes, and the published weights, beta = gamma = 1 at T =
    1, carry over. The segmentation code has no temperature; T² is from the classification code.

    | form | correlation | mean over |
    | --- | --- | --- |
    | `default` | Σxy / (‖x‖·‖y‖), 0 without gradient for a constant student | rows where the teacher varies |
    | `dist` | Σxy / (‖x‖·‖y‖ + 1e-8) | all rows |

    x and y are centred. A row is constant, in the default form, where its standard deviation is
    1e-6 or less: a class that no position is given, or a position undecided between all classes.
    There the released form adds 1 to the sum and, where the teacher varies, a gradient of 1e8
    times the teacher's row, which no half type can hold.

    Args:
        beta: factor of the inter-class part.
        gamma: factor of the intra-class part.
        temperature: T, which softens both distributions.
        form: `default` or `dist`.

    Raises:
        ValueError: for an unknown form, a temperature that is not positive or a factor below 0.
    """

    matches_channels = True
    matches_grid = True
    forms = ("default", "dist")

    def __init__(
        self,
        beta: float | int = 1.0,
        gamma: float | int = 1.0,
        temperature: float | int = 1.0,
        form: str = "default",
    ) -> None:
        super().__init__(form)
        self.beta = not_negative("dist", "beta", beta)
        self.gamma = not_negative("dist", "gamma", gamma)
        self.temperature = positive("dist", "temperature", temperature)

    @property
    def statistic(self) -> str:
        return "columns"

    def forward(
        self, student: Float[Tensor, "b k h w"], teacher: Float[Tensor, "bt kt ht wt"]
    ) -> Float[Tensor, ""]:
        check_pair("dist", student, teacher, channels=True, grid=True)
        ours, theirs = (
            probability_rows(logits, self.temperature) for logits in (student, teacher.detach())
        )
        distance = released_distance if self.form == "dist" else correlation_distance
        inter, intra = distance(ours, theirs), distance(ours.T, theirs.T)
        return self.temperature**2 * (self.beta * inter + self.gamma * intra)


def probability_rows(
    logits: Float[Tensor, "b k h w"], temperature: float
) -> Float[Tensor, "rows k"]:
    """The class probabilities of every position of the batch, one row each."""
    return F.softmax(logits / temperature, 1).permute(0, 2, 3, 1).flatten(0, 2)


def correlation_distance(
    student: Float[Tensor, "r c"], teacher: Float[Tensor, "r c"]
) -> Float[Tensor, ""]:
    """1 - Pearson correlation of each pair of rows, mean over those where the teacher varies."""
    x, y = (unit_vectors(_deviations(rows)) for rows in (student, teacher))
    varies: Bool[Tensor, " r"] = y.any(1)
    distances: Tensor = (1 - (x * y).sum(1)) * varies
    return distances.sum() / varies.sum().clamp_min(1)


def released_distance(
    student: Float[Tensor, "r c"], teacher: Float[Tensor, "r c"], eps: float = 1e-8
) -> Float[Tensor, ""]:
    """1 - Pearson correlation of each pair of rows as released: mean over all rows."""
    x, y = (rows - rows.mean(1, keepdim=True) for rows in (student, teacher))
    lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    distances: Tensor = 1 - (x * y).sum(1) / (lengths + eps)
    return distances.mean()


def _deviations(rows: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
    # Scaled so that a row's length is its standard deviation: the rounding of a long constant
    # column adds up to more than any bound on the length alone.
    return (rows - rows.mean(1, keepdim=True)) / math.sqrt(rows.shape[1])
