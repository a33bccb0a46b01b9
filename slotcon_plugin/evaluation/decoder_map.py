"""A pretrainer's decoder, seen as a backbone with one more stage, so that every probe can read it."""

from __future__ import annotations

from torch import Tensor, nn

from slotcon_plugin.errors import UserError


class WithDecoderMap(nn.Module):
    """Backbone and decoder of one branch: the backbone's stage maps, then the decoder's, its finest as the last one.

    Args:
        branch: ``model.branch('teacher')`` or ``'student'``.

    Raises:
        UserError: the branch has no decoder.
    """

    def __init__(self, branch: nn.ModuleDict) -> None:
        super().__init__()
        if "decoder" not in branch:
            raise UserError(
                f"this pretrainer has no decoder (VADeR and SlotConDecoder have one); its parts are {sorted(branch)}"
            )
        self.backbone, self.decoder = branch["backbone"], branch["decoder"]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` normalised images -> stage maps, then the decoder's ``(B, D, h, w)``, coarsest first."""
        maps = tuple(self.backbone(images))
        decoded = self.decoder(maps)
        return *maps, *((decoded,) if isinstance(decoded, Tensor) else reversed(decoded))
