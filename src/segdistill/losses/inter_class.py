"""Inter-class distance distillation (IDDM): classes lie as far apart as the teacher's do."""

import logging

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from segdistill.geometry import Cells
from segdistill.losses.base import Loss, check_labels, check_pair, one_of, precise
from segdistill.losses.classwise import class_tokens, one_hot, present_classes, sample_labels

logger = logging.getLogger(__name__)

_FORMS = {"default": ("relative", "sqrt", 4), "paper": ("euclidean", "uniform", 1)}
_TARGETS = ["teacher", "permuted", "equal"]
_FEW = 25
"""Classes of a batch up to which differences of tokens cost no more than their products."""


class InterClassDistance(Loss):
    """Squared difference between the two networks' distances between the classes of an image.

    Zhang et al., "Distilling Inter-Class Distance for Semantic Segmentation" (IJCAI 2022,
    https://arxiv.org/abs/2205.03650), eq. 2-3. The nodes of a graph are the classes present in an
    image; a node's token μ is the mean feature of its pixels *by label*; the edge e_ij = ‖μ_i -
    μ_j‖ is the Euclidean distance of two tokens; the loss compares the teacher's edges with the
    student's. Distances are numbers, so the networks' widths and grids may differ. An image with
    fewer than two classes has no edge and does not count.

    The text gives the nodes and edges in words; normalisation and reduction are not in it, and no
    code was released. `paper` is the plainest reading; `default` is what we recommend:

    | | `paper` | `default` |
    | --- | --- | --- |
    | edges | as they are | divided by the mean edge of the same network over the batch |
    | weight of a pair | 1 | √(n_i·n_j), n the positions of a token |
    | positions a token needs | 1 | 4 |

    Both take the (weighted) mean over the pairs i < j of an image, then the mean over the images
    that have an edge. Why the default differs: edges grow as the square root of the width, so a
    student of 128 channels under a teacher of 512 is mostly taught to double its features; divided
    by their mean (the student's own, with its gradient) they express only relations, and the loss
    does not change when the student's features are scaled. The mean is of the *batch*: a mean per
    image would make the one edge of a two-class image 1 by definition and its gradient zero. Tokens
    of one to three positions carry most of the gradient and of the noise, hence the weights and the
    minimum. Where a batch is split (`train.accumulate`, several processes), each part has its own mean
    edge.

    A cell's label is that of the pixel at its centre: where the networks say that it lies (`cells`),
    or, where nobody says, `stride · i` as for a network of odd kernels.

    Two placebos tell whether a gain is due to the teacher's distances; pairs, weights and scale are
    those of the term itself:

    | `target` | the edge that a pair's edge is compared with |
    | --- | --- |
    | `teacher` | the teacher's edge of the same pair |
    | `permuted` | the teacher's edge of two other classes of the same image |
    | `equal` | the teacher's mean edge over the batch; under `relative` this is 1, without a teacher |

    `permuted` sorts the classes that an image shows by 101 · id modulo 257, a fixed order that mixes
    neighbouring ids, and gives each class the edges of the next one, the last those of the first. It is
    the same at every step for the same classes. With three classes or more, no pair keeps its own edge;
    the only edge of a two-class image cannot move and stays the teacher's.

    Args:
        form: `default` or `paper`; sets the four options below, each of which can be set
            separately.
        distance: `relative` (divided by the batch's mean edge) or `euclidean`.
        edge_weight: `sqrt` or `uniform`.
        min_pixels: positions of the feature grid that a token needs to count.
        ordered: mean over all ordered pairs, i = j included, as SKD's pair-wise loss is reduced:
            with uniform weights the value is (k - 1) / k times that over i < j, for k classes.
            False in both forms.
        num_classes: classes of the task, if known; only used to refuse two classes under `permuted`,
            and to warn of them under `relative`, where a single edge per image is left and only its
            variation between images can be taught.
        target: `teacher`, or the placebos `permuted` and `equal`.

    Raises:
        ValueError: for an unknown form or option value, or two classes under `permuted`.
    """

    forms = tuple(_FORMS)

    def __init__(
        self,
        form: str = "default",
        distance: str | None = None,
        edge_weight: str | None = None,
        min_pixels: int | None = None,
        ordered: bool = False,
        num_classes: int | None = None,
        target: str = "teacher",
    ) -> None:
        super().__init__(form)
        preset = _FORMS[form]
        self.distance = one_of(
            "inter_class", "distance", distance or preset[0], ["relative", "euclidean"]
        )
        self.edge_weight = one_of(
            "inter_class", "edge_weight", edge_weight or preset[1], ["sqrt", "uniform"]
        )
        self.min_pixels = preset[2] if min_pixels is None else min_pixels
        if self.min_pixels < 1:
            raise ValueError(
                f"inter_class: min_pixels is {self.min_pixels}; expected 1 or more, since a token is "
                "a mean over positions"
            )
        self.ordered = ordered
        self.num_classes = num_classes
        self.target = one_of("inter_class", "target", target, _TARGETS)
        if num_classes == 2 and target == "permuted":
            raise ValueError(
                "inter_class: target is permuted with 2 classes; expected 3 or more, as an image's only "
                "edge has no other to change places with. Use target=equal"
            )

    def build(self, student_shape: torch.Size, teacher_shape: torch.Size | None) -> None:
        if self.num_classes == 2 and self.distance == "relative":
            logger.warning(
                "inter_class: with two classes an image has a single distance; divided by the "
                "batch mean, only its variation between images is taught (nothing at batch size 1). "
                "Use distance=euclidean to teach the distance itself"
            )

    @property
    def statistic(self) -> str:
        return "mean edge" if self.distance == "relative" or self.target == "equal" else ""

    def denominator(
        self,
        labels: Int64[Tensor, "b hl wl"],
        student_shape: torch.Size,
        teacher_shape: torch.Size | None,
    ) -> Tensor:
        """The number of images with an edge."""
        grids = self._grids(labels, student_shape, teacher_shape or student_shape)
        classes = present_classes(grids[0])
        counts, their_counts = (one_hot(grid, classes).sum(2) for grid in grids)
        shown = torch.minimum(counts, their_counts) >= self.min_pixels
        return (shown.sum(1) > 1).sum()

    def forward(
        self,
        student: Float[Tensor, "b cs hs ws"],
        teacher: Float[Tensor, "bt ct ht wt"],
        labels: Int64[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        check_pair("inter_class", student, teacher)
        check_labels("inter_class", student, labels)
        here, there = self._grids(labels, student.shape, teacher.shape)
        classes = present_classes(here)
        ours, counts = class_tokens(student, here, classes)
        theirs, their_counts = class_tokens(teacher.detach(), there, classes)
        shown = torch.minimum(counts, their_counts) >= self.min_pixels
        edges, their_edges = token_distances(ours), token_distances(theirs)
        pairs = _pairs(shown)
        if self.target == "permuted":
            their_edges = permuted(their_edges, next_class(shown, classes))
        if self.target == "equal":
            their_edges = equal_edges(their_edges, pairs)
        if self.distance == "relative":
            edges = edges / mean_edge(edges, pairs)
            their_edges = their_edges / mean_edge(their_edges, pairs)
        weight = _pair_weights(counts, shown, self.edge_weight, self.ordered)
        return edge_difference(edges, their_edges, weight)

    def _grids(
        self, labels: Tensor, student_shape: torch.Size, teacher_shape: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """Labels at the cells of the student and of the teacher."""
        own, other = self.cells or (None, None)
        return _sampled(labels, student_shape, own), _sampled(labels, teacher_shape, other)


def token_distances(tokens: Float[Tensor, "b k c"]) -> Float[Tensor, "b k k"]:
    """Euclidean distances between the tokens of an image (eq. 2); at 0 the gradient is 0.

    Tokens of float32 that are many go by inner products, in float64, where the device has it. Others go by
    differences.
    """
    if tokens.shape[1] <= _FEW or precise(tokens).dtype == tokens.dtype:
        # Above 25 rows `cdist` would by itself go by inner products of the type that it is given.
        return torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist")
    return _by_products(precise(tokens)).to(tokens)


def _by_products(tokens: Float[Tensor, "b k c"]) -> Float[Tensor, "b k k"]:
    """The same as ‖a‖² + ‖b‖² - 2 a·b of centred tokens, in float64, that were float32.

    Products lose what is close together but far from the centre: a distance d is off by about
    2⁻⁵³ ‖a‖² / d, which is below float32's rounding of d down to d = 1e-4 ‖a‖. Below 2⁻²⁴ ‖a‖, where nothing
    is left, tokens count as equal. So no distance is off by more than float32's rounding of one of length
    ‖a‖, beside which it stands in the loss.
    """
    # The centre changes no distance, so no gradient goes through it. It is that of the tokens that are not
    # zero: most are, of classes that the image does not show.
    fixed = tokens.detach()
    count = fixed.any(2, keepdim=True).sum(1, keepdim=True).clamp_min(1)
    centred = tokens - fixed.sum(1, keepdim=True) / count
    products = centred @ centred.mT
    own = products.diagonal(dim1=1, dim2=2)
    sizes = own[:, :, None] + own[:, None]
    squares = sizes - 2 * products
    # Not `squares > ..`, which would take NaN for the same token.
    apart = ~(squares.detach() <= 2.0**-48 * sizes.detach())
    # The root is taken only where it has a derivative: zero times an infinite one would be NaN.
    roots: Tensor = torch.where(apart, squares, 1).sqrt()
    return torch.where(apart, roots, 0)


def mean_edge(edges: Float[Tensor, "b k k"], pairs: Bool[Tensor, "b k k"]) -> Float[Tensor, ""]:
    """Mean edge over the pairs of the whole batch, at least 1e-6, so that it can divide."""
    return ((edges * pairs).sum() / pairs.sum().clamp_min(1)).clamp_min(1e-6)


def next_class(shown: Bool[Tensor, "b k"], classes: Int64[Tensor, " k"]) -> Int64[Tensor, "b k"]:
    """For each class that an image shows, the index of the next one that it shows.

    The order is that of 101 · id modulo 257, and the last is followed by the first. What stands at a
    class that is not shown has no meaning.

    Args:
        shown: which classes each image shows.
        classes: their ids, 0 to 255.

    Example:
        >>> shown = torch.tensor([[True, True, False, True]])
        >>> next_class(shown, torch.tensor([0, 1, 2, 3])).tolist()  # in order: 0, 3, 1, then 2
        [[3, 0, 0, 1]]
    """
    # 257 is a prime, so that no two ids have the same remainder.
    order = (classes * 101 % 257).argsort()
    there = shown[:, order].long()
    listed = order[there.argsort(dim=1, descending=True, stable=True)]
    place = there.cumsum(1) % there.sum(1, keepdim=True).clamp_min(1)
    following = listed.gather(1, place)
    return following[:, order.argsort()]


def permuted(edges: Float[Tensor, "b k k"], by: Int64[Tensor, "b k"]) -> Float[Tensor, "b k k"]:
    """The edges of other classes: that of i and j becomes that of `by[i]` and `by[j]`."""
    rows = edges.gather(1, by[:, :, None].expand_as(edges))
    return rows.gather(2, by[:, None].expand_as(edges))


def equal_edges(
    edges: Float[Tensor, "b k k"], pairs: Bool[Tensor, "b k k"]
) -> Float[Tensor, "b k k"]:
    """The mean edge of the batch between any two classes, and 0 between a class and itself."""
    apart = 1 - torch.eye(edges.shape[1]).to(edges)
    return mean_edge(edges, pairs) * apart.expand_as(edges)


def edge_difference(
    student: Float[Tensor, "b k k"],
    teacher: Float[Tensor, "b k k"],
    weight: Float[Tensor, "b k k"],
) -> Float[Tensor, ""]:
    """Weighted mean squared difference over pairs (eq. 3), then mean over images with a pair."""
    total = weight.sum((1, 2))
    per_image = (weight * (student - teacher) ** 2).sum((1, 2)) / total.clamp_min(1e-12)
    return per_image.sum() / (total > 0).sum().clamp_min(1)


def _sampled(
    labels: Int64[Tensor, "b hl wl"], shape: torch.Size, cells: Cells | None
) -> Int64[Tensor, "b h w"]:
    return sample_labels(labels, (shape[2], shape[3]), cells=cells)


def _pairs(shown: Bool[Tensor, "b k"]) -> Bool[Tensor, "b k k"]:
    return (shown[:, :, None] & shown[:, None]).triu(1)


def _pair_weights(
    counts: Float[Tensor, "b k"], shown: Bool[Tensor, "b k"], edge_weight: str, ordered: bool
) -> Float[Tensor, "b k k"]:
    root = counts.sqrt() if edge_weight == "sqrt" else torch.ones_like(counts)
    weight = root[:, :, None] * root[:, None]
    if not ordered:
        return weight * _pairs(shown)
    # An image of one class has no edge, also where i = j is among the pairs.
    several = (shown.sum(1) > 1)[:, None, None]
    return weight * (shown[:, :, None] & shown[:, None] & several)
