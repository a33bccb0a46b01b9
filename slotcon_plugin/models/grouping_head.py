"""One grouping head, on whatever map it is put: SlotCon's objective (Wen et al., NeurIPS 2022, sections 3.2 and 3.3).

A head is an ``nn.ModuleDict`` of ``projector``, ``grouping`` and, in the student, ``predictor``; a branch of SlotCon is
such a head itself, with a backbone beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import align_to_overlap
from slotcon_plugin.models.build import build_part
from slotcon_plugin.models.distributed import all_reduce_sum, gather_ranks, rank_offset, zero_like_loss
from slotcon_plugin.models.grouping import Grouping
from slotcon_plugin.models.losses import grouping_loss, mean_entropy_loss, slot_contrast_loss
from slotcon_plugin.models.losses.slot_contrast import NOT_ASKED

# Room for more slots a photo than this is mostly empty, and its arithmetic costs more than to wait for the count.
_MOST_FIXED_SLOTS = 64


def build_grouping_head(
    in_channels: int, projector: Mapping[str, Any], grouping: Mapping[str, Any], predictor: Mapping[str, Any]
) -> nn.ModuleDict:
    """A student's head for a map of ``in_channels``, from the configs of its parts; what follows is filled in."""
    projector = build_part("projector", projector, "MLPHead", in_channels=in_channels, dims=2)
    dim = projector.out_channels
    grouping = build_part("grouping", grouping, "SemanticGrouping", channels=dim)
    predictor = build_part("predictor", predictor, "MLPHead", in_channels=dim, out_channels=dim, dims=0)
    return nn.ModuleDict({"projector": projector, "grouping": grouping, "predictor": predictor})


def group_map(head: nn.ModuleDict, features: Tensor) -> Grouping:
    """``(B, C, H, W)`` -> its grouping by a head."""
    return head["grouping"](head["projector"](features))


@dataclass(frozen=True)
class GroupingObjective:
    """What a head learns: groupings of the same places agree, slots find their twins.

    ``lambda_g * L_group + (1 - lambda_g) * L_slot``, each the sum of both directions (eq. 6).

    Attributes:
        student_temperature: tau_s.
        teacher_temperature: tau_t of the grouping loss.
        contrast_temperature: tau_c.
        group_loss_weight: lambda_g in [0, 1].
        mean_entropy_weight: w of ``w * (log K - H(mean of the student's assignments))``, which is added; 0 = without.
    """

    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    contrast_temperature: float = 0.2
    group_loss_weight: float = 0.5
    mean_entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        if min(self.student_temperature, self.teacher_temperature, self.contrast_temperature) <= 0:
            raise UserError("SlotCon: every temperature must be positive")
        if self.mean_entropy_weight < 0:
            raise UserError(f"SlotCon: mean_entropy_weight must be 0 or more, got {self.mean_entropy_weight}")
        if not 0 <= self.group_loss_weight <= 1:
            raise UserError(f"SlotCon: group_loss_weight must be in [0, 1], got {self.group_loss_weight}")

    def __call__(
        self,
        student: Sequence[Grouping],
        teacher: Sequence[Grouping],
        predictor: nn.Module,
        center: nn.Module,
        overlap: Tensor,
        flipped: Tensor,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of a head, and what to watch; moves the ``center``.

        Args:
            student: groupings of both views by the student's head.
            teacher: by the teacher's.
            predictor: of the student's head; takes ``(N, D)`` and, where shapes are fixed, which rows count.
            center: makes targets of the teacher's aligned logits, see :class:`~slotcon_plugin.models.Center`.
            overlap: boxes of the overlap in each view, ``(B, 2, 4)``, see :func:`overlap_boxes`.
            flipped: ``(B, 2)`` bool.

        Returns:
            ``loss_group`` and ``loss_slot``, weighted, ``loss_mean_entropy`` if it has a weight; and the head's part of
            ``BasePretrainer.monitor``.
        """
        aligned = [
            [
                align_to_overlap(branch[i].assignment_logits, overlap[:, i], flipped[:, i])
                for branch in (student, teacher)
            ]
            for i in (0, 1)
        ]
        with torch.no_grad():
            targets = [center(logits, self.teacher_temperature) for _, logits in aligned]
        group = sum(grouping_loss(aligned[i][0], targets[1 - i], self.student_temperature) for i in (0, 1))
        contrast = [self.contrast(student[i], teacher[1 - i], predictor) for i in (0, 1)]
        center.update(*(grouping.assignment_logits for grouping in teacher))
        losses = {
            "loss_group": self.group_loss_weight * group,
            "loss_slot": (1 - self.group_loss_weight) * sum(loss for loss, _ in contrast),
        }
        if self.mean_entropy_weight:
            mean = _mean_assignment([grouping.assignment_logits for grouping in student], self.student_temperature)
            losses["loss_mean_entropy"] = self.mean_entropy_weight * mean_entropy_loss(mean)
        return losses, _watch(teacher, targets, center) | {"num_queries": sum(queries for _, queries in contrast)}

    def contrast(self, student: Grouping, teacher: Grouping, predictor: nn.Module) -> tuple[Tensor, Tensor]:
        """Slot contrast of one direction (eq. 5), and how many queries this rank had.

        Queries are the slots that both branches have, keys those that the teacher has, of all ranks. The loss is this
        rank's sum times ranks over all ranks' queries: averaged over ranks, as DDP averages gradients, it is what one
        process with the whole batch would compute.
        """
        asked = student.present & teacher.present  # (B, K)
        batch, num_prototypes = asked.shape
        capacity = min(num_prototypes, student.assignment_logits[0, 0].numel())  # each needs a position of its own

        key_rows, key_counts = _packed(teacher.present, capacity)
        keys, key_counts = gather_ranks(teacher.slots.flatten(0, 1)[key_rows]), gather_ranks(key_counts)
        query_rows, counted = _packed(asked, capacity)
        # in its photo's part of the keys, the slot of a prototype stands behind those of the present ones before it
        place = teacher.present.cumsum(1) - 1 + capacity * torch.arange(batch, device=asked.device)[:, None]
        targets = place.flatten()[query_rows] + rank_offset(len(key_rows))
        num_queries = asked.sum()
        total = all_reduce_sum(num_queries.float())[0]
        slots = student.slots.flatten(0, 1)

        if self._has_fixed_shapes(asked.device, capacity):
            predicted = predictor(slots[query_rows], counted)
            loss = slot_contrast_loss(
                predicted, keys, targets.where(counted, NOT_ASKED), self.contrast_temperature, key_counts
            )
            loss = loss.where(total >= 2, loss * 0.0)
        elif total.item() < 2:  # BatchNorm needs two rows; decided from the sum over ranks, so all ranks agree
            loss = zero_like_loss(slots, *predictor.parameters())
        else:
            targets = (key_counts.cumsum(0) - 1)[targets[counted]]
            predicted = predictor(slots[query_rows[counted]])
            loss = slot_contrast_loss(predicted, keys[key_counts], targets, self.contrast_temperature)
        return loss * get_world_size() / total.clamp(min=1), num_queries

    @staticmethod
    def _has_fixed_shapes(device: torch.device, capacity: int) -> bool:
        """Whether the slot contrast is computed in shapes that do not depend on what the photos show, so that the host
        need not wait for an accelerator to count the slots. The results are the same either way."""
        return device.type != "cpu" and capacity <= _MOST_FIXED_SLOTS


def _mean_assignment(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """``(K,)``: over views, batch, positions and ranks. The gradient is this rank's: averaged over ranks, as DDP does,
    it is that of the whole mean."""
    own = torch.stack([(maps.float() / temperature).softmax(dim=1).mean(dim=(0, 2, 3)) for maps in logits]).mean(dim=0)
    (total,) = all_reduce_sum(own.detach())
    return total / get_world_size() + own - own.detach()


def _packed(mask: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """The true entries of ``(B, K)``, those of each photo first, in a fixed room: shapes tell nothing of the mask.

    Returns:
        Rows of the flattened mask, ``(B * capacity,)`` int64, and which of them are true ones, bool.
    """
    true, prototype = mask.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    rows = prototype + mask.shape[1] * torch.arange(len(mask), device=mask.device)[:, None]
    return rows[:, :capacity].flatten(), true[:, :capacity].flatten().bool()


@torch.no_grad()
def _watch(teacher: Sequence[Grouping], targets: Sequence[Tensor], center: nn.Module) -> dict[str, Tensor]:
    entropy = [-(p * p.clamp(min=1e-12).log()).sum(dim=1).mean() for p in targets]
    present = torch.cat([grouping.present for grouping in teacher])
    return {
        "prototype_usage": present.sum(dim=0),  # (K,) images of the batch, both views, that show prototype k
        "live_prototypes": present.any(dim=0).sum(),
        "teacher_entropy": torch.stack(entropy).mean(),  # nats
        "slots": teacher[0].slots,
        "present": teacher[0].present,
        **({"center": center.value} if hasattr(center, "value") else {}),
    }
