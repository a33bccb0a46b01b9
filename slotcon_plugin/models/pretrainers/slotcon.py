"""SlotCon: self-supervised visual representation learning with semantic grouping (Wen et al., NeurIPS 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch, overlap_boxes
from slotcon_plugin.models.build import build_part
from slotcon_plugin.models.grouping import Grouping
from slotcon_plugin.models.grouping_head import GroupingObjective, build_grouping_head, group_map
from slotcon_plugin.models.pretrainers.base import BasePretrainer, Method
from slotcon_plugin.registry import MODELS


def require_overlap(dataset: Dataset) -> None:
    """Refuse a data set whose views may share nothing: groupings are compared where both views look.

    Raises:
        UserError: its crops need not overlap.
    """
    crops = getattr(dataset, "crops", None)
    if crops and not (crops.min_overlap or crops.min_overlap_pixels):
        raise UserError(
            "train_dataloader.dataset.min_overlap is 0, and SlotCon compares what both views show: set it above 0"
        )


@MODELS.register_module()
class SlotCon(BasePretrainer):
    """Prototypes group the positions of two views; groupings must agree, slots must find their twins.

    One grouping head on the backbone's last stage, see :class:`GroupingObjective` for its losses.

    Args:
        backbone: config of a backbone; its last stage map is what is grouped.
        projector: config of the dense head of both branches; ``in_channels`` is filled in from the backbone.
        predictor: config of the student's head on slots; ``in_channels`` and ``out_channels`` are filled in.
        grouping: config with ``num_prototypes`` (K) and the pooling ``temperature``.
        center: config of what makes targets of the teacher's logits: ``Center`` or ``Sinkhorn``.
        student_temperature: tau_s.
        teacher_temperature: tau_t of the grouping loss.
        contrast_temperature: tau_c.
        group_loss_weight: lambda_g in [0, 1].
        mean_entropy_weight: see :class:`GroupingObjective`.
        kwargs: see :class:`BasePretrainer`.
    """

    method = Method("slotcon", "SlotCon", groups=True)

    def __init__(
        self,
        backbone: dict,
        projector: dict,
        predictor: dict,
        grouping: dict,
        center: dict | None = None,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        contrast_temperature: float = 0.2,
        group_loss_weight: float = 0.5,
        mean_entropy_weight: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.objective = GroupingObjective(
            student_temperature, teacher_temperature, contrast_temperature, group_loss_weight, mean_entropy_weight
        )
        backbone, channels, _ = self.build_backbone(backbone)
        head = build_grouping_head(channels[-1], projector, grouping, predictor)
        self.center = build_part("center", center or {}, "Center", num_prototypes=len(head["grouping"].prototypes))
        student = nn.ModuleDict({"backbone": backbone, **head})
        self.set_branches(student, teacher_parts=("backbone", "projector", "grouping"))

    def group(self, images: Tensor, branch: str = "teacher") -> Grouping:
        """Grouping of normalised images ``(B, 3, H, W)`` at the stride of the backbone's last stage."""
        return group_map(self.branch(branch), self.extract_features(images, branch)[-1])

    def prototypes(self, branch: str = "teacher") -> Tensor:
        """Of a branch, ``(K, D)``."""
        return self.branch(branch)["grouping"].prototypes.detach()

    def check_data(self, dataset: Dataset) -> None:
        """See :func:`require_overlap`."""
        require_overlap(dataset)

    def loss(self, batch: TwoViewBatch) -> dict[str, Tensor]:
        """See :meth:`BasePretrainer.loss`."""
        student = [self.group(view, "student") for view in batch.views]
        with torch.no_grad():
            teacher = [self.group(view, "teacher") for view in batch.views]
        boxes = overlap_boxes(batch.crop_boxes, batch.flipped)
        losses, self.monitor = self.objective(
            student, teacher, self.student["predictor"], self.center, boxes, batch.flipped
        )
        return losses | {"teacher_entropy": self.monitor["teacher_entropy"]}
