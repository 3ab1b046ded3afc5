"""Cross-image relations (CIRKD): pixels resemble those of all images as the teacher's do."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from segdistill.losses.base import Loss, check_pair, positive
from segdistill.losses.cosine import unit_vectors

_POOLED_FROM = 256


class ImageRelation(Loss):
    """KL divergence of the similarities of each position to the positions of each image.

    Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation" (CVPR
    2022, https://arxiv.org/abs/2204.06986), the mini-batch part; its memory banks are not included.
    For all ordered pairs of images (i, j) of the batch, i = j included, S = F_i F_jᵀ holds the
    cosines of M positions each; a row of softmax(S / T) says which positions of image j one of
    image i resembles. The loss is the mean over the B² pairs and M rows of KL(teacher ‖ student),
    without T². Relations are compared, so the networks' widths may differ. A single image is
    compared with itself. Where a batch is split (`train.accumulate`, several processes), the images of
    a part are compared, as released.

    | form | positions |
    | --- | --- |
    | `default` | averages over a grid of at most `nodes` x `nodes` |
    | `cirkd` | all; averages over 4x4 windows, last cut, where both sides are 256 or more |

    The reductions agree and neither grows with batch, resolution or channels, so the published
    weight of 1 carries over. The default's (B·M)² cosines are bounded whatever the resolution: 4.2
    million at 8 images and 16 nodes. CIRKD's form holds (B·H·W)² of them, several times over for
    the gradient: at 64x128 cells and two images 268 million, 1 GB per copy.

    Args:
        temperature: T, of the rows' softmax; CIRKD's scripts use 0.1.
        form: `default` or `cirkd`.
        nodes: maximum number of nodes per side, default form only.

    Raises:
        ValueError: for an unknown form, or a temperature or nodes that are not positive.
    """

    matches_grid = True
    forms = ("default", "cirkd")

    def __init__(
        self, temperature: float | int = 0.1, form: str = "default", nodes: int = 16
    ) -> None:
        super().__init__(form)
        self.temperature = positive("image_relation", "temperature", temperature)
        self.nodes = int(positive("image_relation", "nodes", nodes))

    @property
    def statistic(self) -> str:
        return "relations between images"

    def forward(
        self, student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "bt ct ht wt"]
    ) -> Float[Tensor, ""]:
        check_pair("image_relation", student, teacher, grid=True)
        ours, theirs = (
            log_relations(self._nodes(features), self.temperature)
            for features in (student, teacher.detach())
        )
        return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(2).mean()

    def _nodes(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c m"]:
        height, width = features.shape[2:]
        if self.form == "cirkd":
            if min(height, width) >= _POOLED_FROM:
                features = F.avg_pool2d(features, 4, ceil_mode=True)
            return unit_vectors(features.flatten(2), eps=1e-12)
        grid = (min(height, self.nodes), min(width, self.nodes))
        return unit_vectors(F.adaptive_avg_pool2d(features, grid).flatten(2))


def log_relations(vectors: Float[Tensor, "b c m"], temperature: float) -> Float[Tensor, "rows b m"]:
    """Log-probability with which each of the b·m positions resembles one of an image's, for each image."""
    images, _, nodes = vectors.shape
    # All pairs of images by one matmul: c (b m), c (b m) -> (b m) (b m).
    columns = vectors.transpose(0, 1).flatten(1)
    cosines = (columns.T @ columns).reshape(-1, images, nodes)
    return F.log_softmax(cosines / temperature, 2)
