"""Pair-wise distillation: the student's regions resemble each other as the teacher's do."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from segdistill.losses.base import Loss, check_pair, positive
from segdistill.losses.cosine import unit_vectors


class PairwiseKD(Loss):
    """Mean squared difference between the cosine affinities of pooled regions.

    Liu et al., "Structured Knowledge Distillation for Semantic Segmentation" (CVPR 2019,
    https://arxiv.org/abs/1903.04197): a map is pooled to M nodes, A_ij is the cosine of nodes i and
    j of an image, and the loss is Σ (A_teacher - A_student)² / (B·M²): the mean over images and
    ordered pairs, in 0..4. Relations are compared, so the networks' widths may differ.

    | form | nodes | gradient |
    | --- | --- | --- |
    | `default` | averages over a grid of at most `nodes` x `nodes` | of the true cosine |
    | `skd` | maxima over windows of `int(side * scale)`, last cut | norms constant, + 1e-8 |
    | `cirkd` | maxima over 2x2 windows, last cut | of the true cosine |

    The default's memory is bounded whatever the resolution (M² ≤ 65,536 numbers per image at 16),
    which is not so in CIRKD's form, whose nodes grow with the map. SKD's scale of 0.5 gives 3x3
    nodes at 65x65; where its window would be 0 wide, which crashes the released code, ours is 1.
    The reductions agree; averages and maxima do not, so a published weight carries over in size
    only.

    Args:
        form: `default`, `skd` or `cirkd`.
        nodes: maximum number of nodes per side, default form only.
        scale: window of SKD's form as a share of the map's side.

    Raises:
        ValueError: for an unknown form, or nodes or a scale that are not positive.
    """

    matches_grid = True
    forms = ("default", "skd", "cirkd")

    def __init__(self, form: str = "default", nodes: int = 16, scale: float | int = 0.5) -> None:
        super().__init__(form)
        self.nodes = int(positive("pairwise", "nodes", nodes))
        self.scale = positive("pairwise", "scale", scale)

    def forward(
        self, student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "bt ct ht wt"]
    ) -> Float[Tensor, ""]:
        check_pair("pairwise", student, teacher, grid=True)
        ours, theirs = self._nodes(student), self._nodes(teacher.detach())
        return F.mse_loss(affinity(ours), affinity(theirs))

    def _nodes(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c hn wn"]:
        if self.form == "skd":
            pooled = _window_maxima(features, self.scale)
            length = torch.linalg.vector_norm(pooled.detach(), dim=1, keepdim=True)
            nodes: Tensor = pooled / (length + 1e-8)
            return nodes
        if self.form == "cirkd":
            return unit_vectors(F.max_pool2d(features, 2, ceil_mode=True), eps=1e-12)
        rows, columns = (min(side, self.nodes) for side in features.shape[2:])
        return unit_vectors(F.adaptive_avg_pool2d(features, (rows, columns)))


def affinity(vectors: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m m"]:
    """Inner products of all pairs of positions of an image, M = h·w."""
    nodes = vectors.flatten(2)
    return nodes.transpose(1, 2) @ nodes


def _window_maxima(features: Float[Tensor, "b c h w"], scale: float) -> Float[Tensor, "b c hn wn"]:
    windows = [max(1, int(side * scale)) for side in features.shape[2:]]
    return F.max_pool2d(features, windows, ceil_mode=True)
