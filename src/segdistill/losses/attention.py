"""Attention transfer (AT): the student's energy lies where the teacher's does."""

from jaxtyping import Float
from torch import Tensor

from segdistill.losses.base import Loss, check_pair
from segdistill.losses.cosine import unit_vectors


class AttentionTransfer(Loss):
    """Squared distance between the attention maps of the two networks.

    Zagoruyko & Komodakis, "Paying More Attention to Attention" (ICLR 2017,
    https://arxiv.org/abs/1612.03928), eq. (2): the attention of a position is the mean over
    channels of the squared features, and the map of an image, h·w numbers, is divided by its
    Euclidean length. The networks' widths may differ.

    | form | value |
    | --- | --- |
    | `default` | Σ over positions (q_teacher - q_student)², mean over images; in 0..2 |
    | `cirkd` | the mean over images *and* positions, as in CIRKD's code |

    What we do differently: a unit map has entries of about 1/√(H·W), so the released mean falls
    as 1/(H·W), for which its weight of 10,000 makes up at one resolution. `default` = H·W ·
    `cirkd` is 2 - 2 cos of the two maps at any resolution, batch size and number of channels;
    10,000 at the 64x128 cells of a 512x1024 crop is 1.22 in ours. The paper takes the length of the
    difference, not its square, times β/2 with β = 1000 over the number of positions and the batch.

    Args:
        form: `default` or `cirkd`.

    Raises:
        ValueError: for an unknown form.
    """

    matches_grid = True
    forms = ("default", "cirkd")

    def __init__(self, form: str = "default") -> None:
        super().__init__(form)

    def forward(
        self, student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "bt ct ht wt"]
    ) -> Float[Tensor, ""]:
        check_pair("attention", student, teacher, grid=True)
        squares = (attention(student) - attention(teacher.detach())).square()
        return squares.mean() if self.form == "cirkd" else squares.sum(1).mean()


def attention(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p"]:
    """Mean square over the channels at each position, as one unit vector per image."""
    return unit_vectors(features.square().mean(1).flatten(1), eps=1e-12)
