"""VADeR: unsupervised learning of dense visual representations (Pinheiro et al., NeurIPS 2020, arXiv 2011.05499)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

        backbone, channels, strides = self.build_backbone(backbone)
        decoder = build_part("decoder", decoder, "FPNDecoder", in_channels=channels, strides=strides)
        self.queue = KeyQueue(queue_size, decoder.out_channels)
        student = nn.ModuleDict({"backbone": backbone, "decoder": decoder})
        self.set_branches(student, teacher_parts=("backbone", "decoder"))

    def embed(self, images: Tensor, branch: str = "teacher") -> Tensor:
        """Embedding ``(B, D, h, w)`` of normalised images ``(B, 3, H, W)``, un-normalised, at the decoder's stride."""
        return self.branch(branch)["decoder"](self.extract_features(images, branch))

    def loss(self, batch: TwoViewBatch) -> dict[str, Tensor]:
        """See :meth:`BasePretrainer.loss`; ``sample_index`` tells which keys of the queue are of the same image."""
        first = self.embed(batch.views[0], "student")
        with torch.no_grad():
            second = self.embed(batch.views[1], "teacher")
        pairs = sample_pairs(batch.crop_boxes, batch.flipped, first.shape[-2:], self.num_pairs)
        queries = take_pixels(first, pairs.index)
        keys = nn.functional.normalize(sample_points(second, pairs.points, self.interpolation), dim=-1)

        contrast = (queries, keys, self.queue.keys, self.queue.excluded_for(batch.sample_index))
        loss = info_nce_loss(*contrast, self.temperature, self.decoupled)
        figures = {}
        if self.reporting:
            nearest = nearest_keys(queries, keys.flatten(0, 1)).flatten()
            own = torch.arange(len(nearest), device=nearest.device)
            figures = {
                # share of queries whose nearest key of the batch, their own image's included, is their own
                "pixel_accuracy": (nearest == own).float().mean(),
                **contrast_figures(*contrast),
                "queue_fill": self.queue.fill,
            }
        self.monitor = {**figures, "features": keys.flatten(0, 1)}
        self.queue.enqueue(keys.flatten(0, 1), batch.sample_index.repeat_interleave(self.num_pairs))
        return {"loss_pixel": loss, **figures}
