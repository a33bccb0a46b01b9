"""SlotCon: self-supervised visual representation learning with semantic grouping (Wen et al., NeurIPS 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch, align_to_overlap, overlap_boxes
from slotcon_plugin.models.build import build_part
from slotcon_plugin.models.distributed import all_reduce_sum, gather_ranks, rank_offset, zero_like_loss
from slotcon_plugin.models.grouping import Grouping
from slotcon_plugin.models.losses import grouping_loss, slot_contrast_loss
from slotcon_plugin.models.pretrainers.base import BasePretrainer, Method
from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class SlotCon(BasePretrainer):
    """Prototypes group the positions of two views; groupings must agree, slots must find their twins.

    ``L = lambda_g * L_group + (1 - lambda_g) * L_slot``, each the sum of both directions (eq. 6).

    Args:
        backbone: config of a backbone; its last stage map is what is grouped.
        projector: config of the dense head of both branches; ``in_channels`` is filled in from the backbone.
        predictor: config of the student's head on slots; ``in_channels`` and ``out_channels`` are filled in.
        grouping: config with ``num_prototypes`` (K) and the pooling ``temperature``.
        center: config of the centring of the teacher's logits.
        student_temperature: tau_s.
        teacher_temperature: tau_t of the grouping loss.
        contrast_temperature: tau_c.
        group_loss_weight: lambda_g in [0, 1].
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
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if min(student_temperature, teacher_temperature, contrast_temperature) <= 0:
            raise UserError("SlotCon: every temperature must be positive")
        if not 0 <= group_loss_weight <= 1:
            raise UserError(f"SlotCon: group_loss_weight must be in [0, 1], got {group_loss_weight}")
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.contrast_temperature = contrast_temperature
        self.group_loss_weight = group_loss_weight

        backbone, channels, _ = self.build_backbone(backbone)
        projector = build_part("projector", projector, "MLPHead", in_channels=channels[-1], dims=2)
        dim = projector.out_channels
        grouping = build_part("grouping", grouping, "SemanticGrouping", channels=dim)
        predictor = build_part("predictor", predictor, "MLPHead", in_channels=dim, out_channels=dim, dims=0)
        self.center = build_part("center", center or {}, "Center", num_prototypes=len(grouping.prototypes))
        student = {"backbone": backbone, "projector": projector, "grouping": grouping, "predictor": predictor}
        self.set_branches(nn.ModuleDict(student), teacher_parts=("backbone", "projector", "grouping"))

    def group(self, images: Tensor, branch: str = "teacher") -> Grouping:
        """Grouping of normalised images ``(B, 3, H, W)`` at the stride of the backbone's last stage."""
        parts = self.branch(branch)
        return parts["grouping"](parts["projector"](self.extract_features(images, branch)[-1]))

    def loss(self, batch: TwoViewBatch) -> dict[str, Tensor]:
        """See :meth:`BasePretrainer.loss`."""
        boxes = overlap_boxes(batch.crop_boxes, batch.flipped)
        student = [self.group(view, "student") for view in batch.views]
        with torch.no_grad():
            teacher = [self.group(view, "teacher") for view in batch.views]

        num_prototypes = len(self.student["grouping"].prototypes)
        aligned = [
            align_to_overlap(
                torch.cat([student[i].assignment_logits, teacher[i].assignment_logits], dim=1),
                boxes[:, i],
                batch.flipped[:, i],
            ).split(num_prototypes, dim=1)
            for i in (0, 1)
        ]
        centred = [self.center(aligned[i][1]) for i in (0, 1)]
        group = sum(
            grouping_loss(aligned[i][0], centred[1 - i], self.student_temperature, self.teacher_temperature)
            for i in (0, 1)
        )
        contrast = [self._contrast(student[i], teacher[1 - i]) for i in (0, 1)]
        self.center.update(*(grouping.assignment_logits for grouping in teacher))
        self._watch(teacher, centred, sum(queries for _, queries in contrast))
        return {
            "loss_group": self.group_loss_weight * group,
            "loss_slot": (1 - self.group_loss_weight) * sum(loss for loss, _ in contrast),
            "teacher_entropy": self.monitor["teacher_entropy"],
            "live_prototypes": self.monitor["live_prototypes"].float(),
        }

    def _contrast(self, student: Grouping, teacher: Grouping) -> tuple[Tensor, int]:
        """Slot contrast of one direction, and how many queries this rank had.

        The loss is this rank's sum times ranks over all ranks' queries: averaged over ranks, as DDP averages
        gradients, it is what one process with the whole batch would compute.
        """
        asked = (student.present & teacher.present).flatten()
        queries = student.slots.flatten(0, 1)[asked]
        total, ranks = all_reduce_sum(torch.tensor([len(queries), 1.0], device=asked.device))[0]
        keys_present = gather_ranks(teacher.present.flatten())
        keys = gather_ranks(teacher.slots.flatten(0, 1))[keys_present]
        if total.item() < 2:  # BatchNorm needs two rows; decided from the sum over ranks, so all ranks agree
            return zero_like_loss(student.slots, *self.student["predictor"].parameters()), len(queries)
        rows = asked.nonzero().squeeze(1) + rank_offset(len(asked))
        targets = keys_present.cumsum(0)[rows] - 1
        loss = slot_contrast_loss(self.student["predictor"](queries), keys, targets, self.contrast_temperature)
        return loss * ranks / total, len(queries)

    @torch.no_grad()
    def _watch(self, teacher: list[Grouping], centred: list[Tensor], num_queries: int) -> None:
        target = [(logits / self.teacher_temperature).softmax(dim=1) for logits in centred]
        entropy = [-(p * p.clamp(min=1e-12).log()).sum(dim=1).mean() for p in target]
        present = torch.cat([grouping.present for grouping in teacher])
        self.monitor = {
            "prototype_usage": present.sum(dim=0),  # (K,) images of the batch, both views, that show prototype k
            "live_prototypes": present.any(dim=0).sum(),
            "teacher_entropy": torch.stack(entropy).mean(),  # nats
            "num_queries": torch.tensor(num_queries),
            "slots": teacher[0].slots[teacher[0].present],
            "center": self.center.value,
        }
