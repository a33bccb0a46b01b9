"""SlotCon with a decoder that is pretrained too, after DeCon (arXiv 2503.17526, WACV 2026; equations, not its code)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch, overlap_boxes
from slotcon_plugin.models.build import build_part
from slotcon_plugin.models.grouping import Grouping, SemanticGrouping
from slotcon_plugin.models.grouping_head import GroupingObjective, build_grouping_head, group_map
from slotcon_plugin.models.pretrainers.base import BasePretrainer, Method
from slotcon_plugin.models.pretrainers.slotcon import require_overlap
from slotcon_plugin.registry import MODELS

ENCODER = "encoder"


@MODELS.register_module()
class SlotConDecoder(BasePretrainer):
    """SlotCon's objective on the encoder's last map and on maps of a decoder, a head of its own on each.

    ``L = w_e * L_encoder + (1 - w_e) * mean over the decoder's maps of L_map``. Nothing is detached: what the decoder's
    heads learn reaches the encoder. The teacher has a decoder of its own, in which nothing is dropped.

    Args:
        backbone: config of a backbone; all its stage maps go into the decoder.
        decoder: config of a decoder with ``level_names`` and ``out_channels``: ``PyramidDecoder`` (a head on each of
            its levels; a single level is DeCon's "SL") or ``FCNDecoder``. ``in_channels`` is filled in.
        projector, predictor, grouping, center: configs of the heads, as :class:`SlotCon`'s.
        decoder_head: what is different in the heads on the decoder's maps: a dict with some of ``projector``,
            ``predictor`` and ``grouping``. These heads see many more positions: make them small.
        encoder_loss_weight: w_e in [0, 1]. 1 is SlotCon, without a decoder; 0 leaves out the encoder's head.
        student_temperature, teacher_temperature, contrast_temperature: see :class:`GroupingObjective`.
        group_loss_weight: lambda_g of the encoder's head.
        decoder_group_loss_weight: of the decoder's; the same when None.
        mean_entropy_weight: of every head, see :class:`GroupingObjective`.
        freeze_teacher_prototypes: leave the prototypes of the teacher's decoder heads at their random start, as DeCon's
            published code does; otherwise they follow the student's like everything else.
        kwargs: see :class:`BasePretrainer`.

    Attributes:
        heads: names of the heads: ``'encoder'`` and the decoder's ``level_names``.
        shown_head: whose grouping :meth:`group` gives; the decoder's finest at first.
    """

    method = Method("slotcon_decoder", "SlotCon with decoder", groups=True)

    def __init__(
        self,
        backbone: dict,
        decoder: dict,
        projector: dict,
        predictor: dict,
        grouping: dict,
        decoder_head: dict | None = None,
        center: dict | None = None,
        encoder_loss_weight: float = 0.5,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        contrast_temperature: float = 0.2,
        group_loss_weight: float = 0.5,
        decoder_group_loss_weight: float | None = None,
        mean_entropy_weight: float = 0.0,
        freeze_teacher_prototypes: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= encoder_loss_weight <= 1:
            raise UserError(f"SlotConDecoder: encoder_loss_weight must be in [0, 1], got {encoder_loss_weight}")
        self.encoder_loss_weight = encoder_loss_weight
        temperatures = (student_temperature, teacher_temperature, contrast_temperature)
        if decoder_group_loss_weight is None:
            decoder_group_loss_weight = group_loss_weight
        self.encoder_objective, self.decoder_objective = (
            GroupingObjective(*temperatures, weight, mean_entropy_weight)
            for weight in (group_loss_weight, decoder_group_loss_weight)
        )
        of_encoder = {"projector": projector, "grouping": grouping, "predictor": predictor}

        backbone, channels, _ = self.build_backbone(backbone)
        student = nn.ModuleDict({"backbone": backbone, "heads": nn.ModuleDict()})
        if encoder_loss_weight > 0:
            student["heads"][ENCODER] = build_grouping_head(channels[-1], **of_encoder)
        if encoder_loss_weight < 1:
            student["decoder"] = build_part("decoder", decoder, "PyramidDecoder", in_channels=channels)
            for name in student["decoder"].level_names:
                configs = _merged(of_encoder, decoder_head or {})
                student["heads"][name] = build_grouping_head(student["decoder"].out_channels, **configs)
        self.heads = tuple(student["heads"])
        self.shown_head = self.heads[min(1, len(self.heads) - 1)] if ENCODER in self.heads else self.heads[0]
        self.centers = nn.ModuleDict(
            {
                name: build_part("center", center or {}, "Center", num_prototypes=len(head["grouping"].prototypes))
                for name, head in student["heads"].items()
            }
        )
        whole = [name for name in ("backbone", "decoder") if name in student]
        projectors = [f"heads.{name}.projector" for name in self.heads]
        self.dense_parts = (*whole, *projectors)
        self.set_branches(student, (*whole, *projectors, *(f"heads.{name}.grouping" for name in self.heads)))
        if freeze_teacher_prototypes:
            for name in set(self.heads) - {ENCODER}:
                _freeze_prototypes(self.teacher["heads"][name]["grouping"])

    def group(self, images: Tensor, branch: str = "teacher") -> Grouping:
        """Grouping of normalised images ``(B, 3, H, W)`` by :attr:`shown_head`, at its map's stride."""
        return self.group_all(images, branch)[self.shown_head]

    def group_all(self, images: Tensor, branch: str = "teacher") -> dict[str, Grouping]:
        """Grouping of normalised images by every head."""
        parts = self.branch(branch)
        stage_maps = self.extract_features(images, branch)
        maps = {ENCODER: stage_maps[-1]}
        if "decoder" in parts:
            maps |= zip(parts["decoder"].level_names, parts["decoder"](stage_maps), strict=True)
        return {name: group_map(parts["heads"][name], maps[name]) for name in self.heads}

    def prototypes(self, branch: str = "teacher") -> Tensor:
        """Of :attr:`shown_head`, ``(K, D)``."""
        return self.branch(branch)["heads"][self.shown_head]["grouping"].prototypes.detach()

    def check_data(self, dataset: Dataset) -> None:
        """See :func:`~slotcon_plugin.models.pretrainers.slotcon.require_overlap`."""
        require_overlap(dataset)

    def loss(self, batch: TwoViewBatch) -> dict[str, Tensor]:
        """See :meth:`BasePretrainer.loss`; the decoder's losses have the name of their map behind them."""
        student = [self.group_all(view, "student") for view in batch.views]
        with torch.no_grad():
            teacher = [self.group_all(view, "teacher") for view in batch.views]
        boxes = overlap_boxes(batch.crop_boxes, batch.flipped)
        result: dict[str, Tensor] = {}
        self.monitor = {}
        for name in self.heads:
            objective = self.encoder_objective if name == ENCODER else self.decoder_objective
            losses, monitor = objective(
                [groupings[name] for groupings in student],
                [groupings[name] for groupings in teacher],
                self.student["heads"][name]["predictor"],
                self.centers[name],
                boxes,
                batch.flipped,
            )
            if name == ENCODER:
                weight, suffix = self.encoder_loss_weight, ""
                self.monitor |= monitor
            else:
                levels = len(self.heads) - (ENCODER in self.heads)
                weight, suffix = (1 - self.encoder_loss_weight) / levels, f"_{name}"
                self.monitor[name] = monitor
            result |= {f"{key}{suffix}": weight * value for key, value in losses.items()}
            result[f"teacher_entropy{suffix}"] = monitor["teacher_entropy"]
        return result


def _merged(configs: Mapping[str, dict], changes: Mapping[str, dict]) -> dict[str, dict[str, Any]]:
    """Configs with some of their options changed.

    Raises:
        UserError: a part that there is not.
    """
    if unknown := changes.keys() - configs.keys():
        raise UserError(f"SlotConDecoder: decoder_head has no {sorted(unknown)}; it has {sorted(configs)}")
    return {part: {**config, **changes.get(part, {})} for part, config in configs.items()}


def _freeze_prototypes(grouping: SemanticGrouping) -> None:
    """Take them out of what the moving average reaches: it moves parameters, and leaves buffers alone."""
    prototypes = grouping.prototypes.detach().clone()
    del grouping.prototypes
    grouping.register_buffer("prototypes", prototypes)
