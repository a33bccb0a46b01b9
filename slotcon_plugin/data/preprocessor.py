"""From a collated batch to what the pretrainers take: on the device, colour-augmented, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from slotcon_plugin.data.photometric import NUM_PARAMETERS, apply_photometric, plan_blocks, send
from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.normalization import IMAGENET_MEAN, IMAGENET_STD
from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class TwoViewPreprocessor(BaseDataPreprocessor):
    """Moves a batch of two views to the device, augments colours there, normalises.

    Args:
        mean: of the RGB channels, for pixels in [0, 1].
        std: likewise.
        channels_last: give the views ``torch.channels_last`` memory; a pretrainer sets this to its own option.

    Attributes:
        input_convention: what the network is fed, for pixels in 0..255, as checkpoints state it.
    """

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channels_last: bool = False,
    ) -> None:
        super().__init__(non_blocking=True)  # has an effect where the loader pins memory
        self.register_buffer("mean", torch.empty(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.empty(3, 1, 1), persistent=False)
        self.normalise_by(mean, std)
        self.channels_last = channels_last

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the statistics of RGB pixels in [0, 1].

        Raises:
            UserError: they are for pixels in 0..255, or not three positive deviations.
        """
        if len(mean) != 3 or len(std) != 3 or max(mean) > 1 or max(std) > 1 or min(std) <= 0:
            raise UserError(
                f"mean and std are three numbers for pixels in [0, 1], got mean {mean}, std {std}; if they are for "
                "0..255, divide them by 255"
            )
        self.mean.copy_(torch.tensor(mean)[:, None, None])
        self.std.copy_(torch.tensor(std)[:, None, None])
        self.input_convention = {
            "colour_order": "RGB",
            "mean": [round(255 * value, 4) for value in mean],
            "std": [round(255 * value, 4) for value in std],
        }

    def forward(self, data: dict[str, Tensor], training: bool = False) -> dict[str, TwoViewBatch]:
        """One batch.

        Args:
            data: as :class:`~slotcon_plugin.data.dataset.TwoViewDataset` gives it, collated: views (B, 2, 3, S, S)
                uint8, crop_boxes (B, 2, 4), flipped (B, 2), photometric (B, 2, P) and sample_index (B,).
            training: ignored; two views are always a training batch.

        Returns:
            The batch on the device, under ``inputs``: mmengine passes the entries of a dict to ``forward`` by name.
        """
        views, parameters = data["views"], data["photometric"]
        if views.dtype != torch.uint8 or views.ndim != 5 or parameters.shape[1:] != (2, NUM_PARAMETERS):
            raise ValueError(
                "TwoViewPreprocessor expects collated samples of TwoViewDataset, views (B, 2, 3, S, S) uint8 and "
                f"photometric (B, 2, {NUM_PARAMETERS}), got {tuple(views.shape)} {views.dtype} and "
                f"{tuple(parameters.shape)}; is `collate_fn=dict(type='default_collate')` set in the dataloader?"
            )
        count = len(views)
        rest = self.cast_data({name: data[name] for name in ("crop_boxes", "flipped", "sample_index")})
        views = self.cast_data(views).flatten(0, 1)  # (B*2, 3, S, S), the two views of a sample side by side
        parameters = parameters.cpu().flatten(0, 1)
        # All of the first views come before all of the second ones, so that each half is a batch for the model.
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        out = torch.empty(views.shape, device=views.device, memory_format=layout)
        for block in plan_blocks(parameters, views[0].numel(), views.device):
            chosen = send(block, views.device)
            pixels = views.index_select(0, chosen).float().div_(255)
            apply_photometric(pixels, parameters[block])
            place = send(block % 2 * count + block // 2, views.device)
            out.index_copy_(0, place, pixels.sub_(self.mean).div_(self.std))
        return dict(inputs=TwoViewBatch(views=tuple(out.chunk(2)), **rest))
