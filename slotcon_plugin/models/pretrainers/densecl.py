"""DenseCL: dense contrastive learning for self-supervised visual pre-training (Wang et al., CVPR 2021, 2011.09157)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models.build import build_part
from slotcon_plugin.models.correspondence import most_similar_pixels
from slotcon_plugin.models.losses import contrast_figures, info_nce_loss
from slotcon_plugin.models.pixel_pairs import take_pixels
from slotcon_plugin.models.pretrainers.base import BasePretrainer, Method
from slotcon_plugin.models.queue import KeyQueue
from slotcon_plugin.registry import MODELS


class Projections(NamedTuple):
    """What a branch makes of a view.

    Attributes:
        features: the backbone's last stage map, ``(B, C, h, w)``.
        image: projection of the pooled map, ``(B, D)``.
        dense: projection of each position, ``(B, D, h, w)``.
    """

    features: Tensor
    image: Tensor
    dense: Tensor


@MODELS.register_module()
class DenseCL(BasePretrainer):
    """An image must find its other view, and each position the one of the other view that looks most like it.

    ``L = (1 - lambda) * L_image + lambda * L_dense`` (eq. 3), both InfoNCE. The student sees the first view, the
    teacher the second. Positions are matched by the backbones' features, so that the crops need not overlap. Negatives
    are other images through a queue each: of their projections, and of the means of their dense projections.

    Other than in the official code, BatchNorm sees the batches of all ranks (there: shuffled ones), and keys of an
    image's own are never its negatives (there they are, once the data set is smaller than the queue). Queues start
    empty (there: with random keys), so the first step's loss is 0, and heads are drawn as SlotCon's are.

    Args:
        backbone: config of a backbone; its last stage map is what is projected.
        projector: config of the head on pooled features; ``in_channels`` and ``dims`` are filled in.
        dense_projector: config of the head on positions; likewise.
        dense_loss_weight: lambda in [0, 1].
        temperature: tau of both losses.
        queue_size: negatives kept in each queue, over all ranks.
        kwargs: see :class:`BasePretrainer`; the teacher's momentum is .999 throughout, as in MoCo.
    """

    method = Method("densecl", "DenseCL", transfers="student", embeds_pixels=True)
    dense_parts = ("backbone", "dense_projector")

    def __init__(
        self,
        backbone: dict,
        projector: dict,
        dense_projector: dict,
        dense_loss_weight: float = 0.5,
        temperature: float = 0.2,
        queue_size: int = 65536,
        teacher_momentum: float = 0.999,
        teacher_momentum_schedule: str = "constant",
        **kwargs,
    ) -> None:
        super().__init__(
            teacher_momentum=teacher_momentum, teacher_momentum_schedule=teacher_momentum_schedule, **kwargs
        )
        if temperature <= 0:
            raise UserError(f"DenseCL: temperature must be positive, got {temperature}")
        if not 0 <= dense_loss_weight <= 1:
            raise UserError(f"DenseCL: dense_loss_weight must be in [0, 1], got {dense_loss_weight}")
        self.temperature = temperature
        self.dense_loss_weight = dense_loss_weight

        backbone, channels, _ = self.build_backbone(backbone)
        projector = build_part("projector", projector, "MLPHead", in_channels=channels[-1], dims=0)
        dense = build_part("dense_projector", dense_projector, "MLPHead", in_channels=channels[-1], dims=2)
        self.queue = KeyQueue(queue_size, projector.out_channels)
        self.dense_queue = KeyQueue(queue_size, dense.out_channels)
        student = {"backbone": backbone, "projector": projector, "dense_projector": dense}
        self.set_branches(nn.ModuleDict(student), teacher_parts=tuple(student))

    def embed(self, images: Tensor, branch: str = "teacher") -> Tensor:
        """Dense projection ``(B, D, h, w)`` of normalised images ``(B, 3, H, W)``, at the last stage's stride."""
        return self.branch(branch)["dense_projector"](self.extract_features(images, branch)[-1])

    def loss(self, batch: TwoViewBatch) -> dict[str, Tensor]:
        """See :meth:`BasePretrainer.loss`; ``sample_index`` tells which keys of the queues are of the same image."""
        first = self._project(batch.views[0], "student")
        with torch.no_grad():
            second = self._project(batch.views[1], "teacher")
        matches = most_similar_pixels(first.features, second.features)
        positions = first.dense.flatten(2).transpose(1, 2)  # (B, h * w, D)
        image, dense = (
            (queries, keys, queue.keys, queue.excluded_for(batch.sample_index))
            for queries, keys, queue in (
                (first.image[:, None], second.image[:, None], self.queue),
                (positions, take_pixels(second.dense, matches), self.dense_queue),
            )
        )
        losses = {
            "loss_image": (1 - self.dense_loss_weight) * info_nce_loss(*image, self.temperature),
            "loss_dense": self.dense_loss_weight * info_nce_loss(*dense, self.temperature),
        }
        figures = {}
        if self.reporting:
            figures = {
                **contrast_figures(*image),
                **{f"dense_{name}": value for name, value in contrast_figures(*dense).items()},
                "matched_share": _distinct_share(matches, second.dense[0, 0].numel()),
                "queue_fill": self.queue.fill,
            }
        self.monitor = {**figures, "features": second.dense.flatten(2).transpose(1, 2).flatten(0, 1)}
        self.queue.enqueue(F.normalize(second.image.float(), dim=1), batch.sample_index)
        self.dense_queue.enqueue(F.normalize(second.dense.float().mean(dim=(2, 3)), dim=1), batch.sample_index)
        return losses | figures

    def _project(self, images: Tensor, branch: str) -> Projections:
        parts, features = self.branch(branch), self.extract_features(images, branch)[-1]
        return Projections(features, parts["projector"](features.mean(dim=(2, 3))), parts["dense_projector"](features))


def _distinct_share(matches: Tensor, positions: int) -> Tensor:
    """Share of the second view's positions that are some position's match; 1 / ``positions`` = all take the same."""
    taken = torch.zeros(len(matches), positions, device=matches.device).scatter_(1, matches, 1.0)
    return taken.mean()
