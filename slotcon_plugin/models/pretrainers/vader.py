"""VADeR: unsupervised learning of dense visual representations (Pinheiro et al., NeurIPS 2020, arXiv 2011.05499)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models.build import build_part
from slotcon_plugin.models.losses import contrast_figures, info_nce_loss, nearest_keys
from slotcon_plugin.models.pixel_pairs import INTERPOLATIONS, sample_pairs, sample_points, take_pixels
from slotcon_plugin.models.pretrainers.base import BasePretrainer, Method
from slotcon_plugin.models.queue import KeyQueue
from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class VADeR(BasePretrainer):
    """A pixel must find the pixel of the other view that shows the same place, among pixels of other images.

    The student sees the first view, the teacher the second. Negatives come from other images only, through a queue of
    the teacher's pixels: the paper found that negatives of the same image hurt.

    Args:
        backbone: config of a backbone; all its stage maps go into the decoder.
        decoder: config of the decoder of both branches, whose output is the embedding; ``in_channels`` and
            ``strides`` are filled in from the backbone.
        num_pairs: pixel pairs a pair of views. The dataset must guarantee as many (``min_overlap_pixels``).
        temperature: tau of InfoNCE.
        decoupled: leave the positive out of InfoNCE's denominator, see :func:`info_nce_loss`.
        queue_size: negatives kept, over all ranks.
        interpolation: how the teacher's map is read at a matching place: ``'bilinear'`` or ``'nearest'``.
        symmetric: the student sees the second view, too, and the teacher the first; the loss is the mean of both
            directions, and the keys of both are queued. Twice the forward passes.
        kwargs: see :class:`BasePretrainer`; the teacher's momentum is .999 throughout, as in MoCo.
    """

    method = Method("vader", "VADeR", embeds_pixels=True)
    dense_parts = ("backbone", "decoder")

    def __init__(
        self,
        backbone: dict,
        decoder: dict,
        num_pairs: int = 32,
        temperature: float = 0.07,
        decoupled: bool = False,
        queue_size: int = 65536,
        interpolation: str = "bilinear",
        symmetric: bool = False,
        teacher_momentum: float = 0.999,
        teacher_momentum_schedule: str = "constant",
        **kwargs,
    ) -> None:
        super().__init__(
            teacher_momentum=teacher_momentum, teacher_momentum_schedule=teacher_momentum_schedule, **kwargs
        )
        if temperature <= 0:
            raise UserError(f"VADeR: temperature must be positive, got {temperature}")
        if num_pairs < 1:
            raise UserError(f"VADeR: num_pairs must be at least 1, got {num_pairs}")
        if interpolation not in INTERPOLATIONS:
            raise UserError(f"VADeR: interpolation must be one of {INTERPOLATIONS}, got {interpolation!r}")
        self.num_pairs = num_pairs
        self.temperature = temperature
        self.decoupled = decoupled
        self.interpolation = interpolation
        self.symmetric = symmetric

        backbone, channels, strides = self.build_backbone(backbone)
        decoder = build_part("decoder", decoder, "FPNDecoder", in_channels=channels, strides=strides)
        self.queue = KeyQueue(queue_size, decoder.out_channels)
        student = nn.ModuleDict({"backbone": backbone, "decoder": decoder})
        self.set_branches(student, teacher_parts=("backbone", "decoder"))

    def embed(self, images: Tensor, branch: str = "teacher") -> Tensor:
        """Embedding ``(B, D, h, w)`` of normalised images ``(B, 3, H, W)``, un-normalised, at the decoder's stride."""
        return self.branch(branch)["decoder"](self.extract_features(images, branch))

    def check_data(self, dataset: Dataset) -> None:
        """Refuse crops that may share fewer than ``num_pairs`` pixels of the embedding."""
        crops = getattr(dataset, "crops", None)
        if crops is None:
            return
        side = -(-dataset.view_size // self.student["decoder"].output_stride)
        if crops.min_overlap_pixels < self.num_pairs or crops.overlap_grid != side:
            raise UserError(
                f"VADeR draws {self.num_pairs} pairs of pixels from maps of {side} x {side} (views of "
                f"{dataset.view_size}), but two crops are only guaranteed to share {crops.min_overlap_pixels} of "
                f"{crops.overlap_grid} x {crops.overlap_grid}: set "
                f"train_dataloader.dataset.min_overlap_pixels={self.num_pairs} "
                f"train_dataloader.dataset.overlap_grid={side}"
            )

    def loss(self, batch: TwoViewBatch) -> dict[str, Tensor]:
        """See :meth:`BasePretrainer.loss`; ``sample_index`` tells which keys of the queue are of the same image."""
        directions = [self._pairs(batch, student=0)]
        if self.symmetric:
            directions.append(self._pairs(batch, student=1))
        negatives = self.queue.keys, self.queue.excluded_for(batch.sample_index)
        losses = [info_nce_loss(*pairs, *negatives, self.temperature, self.decoupled) for pairs in directions]
        keys = torch.cat([keys for _, keys in directions], dim=1)  # (B, P or 2 P, D)
        figures = {}
        if self.reporting:
            queries = torch.cat([queries for queries, _ in directions], dim=1)
            nearest = nearest_keys(queries, keys.flatten(0, 1)).flatten()
            own = torch.arange(len(nearest), device=nearest.device)
            figures = {
                # share of queries whose nearest key of the batch, their own image's included, is their own
                "pixel_accuracy": (nearest == own).float().mean(),
                **contrast_figures(queries, keys, *negatives),
                "queue_fill": self.queue.fill,
            }
        self.monitor = {**figures, "features": keys.flatten(0, 1)}
        self.queue.enqueue(keys.flatten(0, 1), batch.sample_index.repeat_interleave(keys.shape[1]))
        return {"loss_pixel": sum(losses) / len(losses), **figures}

    def _pairs(self, batch: TwoViewBatch, student: int) -> tuple[Tensor, Tensor]:
        """Queries of the view that the student sees and their keys of the other, ``(B, P, D)`` each."""
        seen = self.embed(batch.views[student], "student")
        with torch.no_grad():
            other = self.embed(batch.views[1 - student], "teacher")
        boxes, flipped = batch.crop_boxes, batch.flipped
        if student == 1:
            boxes, flipped = boxes.flip(1), flipped.flip(1)
        pairs = sample_pairs(boxes, flipped, seen.shape[-2:], self.num_pairs)
        keys = sample_points(other, pairs.points, self.interpolation)
        return take_pixels(seen, pairs.index), nn.functional.normalize(keys, dim=-1)
