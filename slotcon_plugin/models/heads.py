"""Multi-layer perceptrons on feature maps or on vectors."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import batch_norm_over_ranks
from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class MLPHead(nn.Module):
    """Linear layers with a norm and an activation between them; SlotCon's (section 3.3, official code) by default.

    On maps the linear layers are 1x1 convolutions. Weights are drawn from a normal with standard deviation 0.02
    truncated at 2, biases are zero.

    Args:
        in_channels: channels of the input.
        hidden_channels: channels of every hidden layer.
        out_channels: channels of the output.
        num_layers: linear layers in all.
        dims: 2 for maps ``(B, C, H, W)``, 0 for vectors ``(N, C)``.
        norm: ``'BatchNorm'``, or None for none.
        activation: a class of ``torch.nn`` by name, ``'GELU'``, ``'ReLU'``, ..., or None for none.
        norm_last: standardise every output channel over the batch (BatchNorm without affine parameters). Not in
            the paper; it keeps the cosine similarities of small-batch runs apart from the first step on.

    Raises:
        UserError: an option that cannot be.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 4096,
        out_channels: int = 256,
        num_layers: int = 3,
        dims: int = 2,
        norm: str | None = "BatchNorm",
        activation: str | None = "GELU",
        norm_last: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1 or dims not in (0, 2):
            raise UserError(f"MLPHead: want num_layers >= 1 and dims 0 or 2, got {num_layers} and {dims}")
        if norm not in ("BatchNorm", None):
            raise UserError(f"MLPHead: norm must be 'BatchNorm' or None, got {norm!r}")
        if activation is not None and activation not in nn.modules.activation.__all__:
            raise UserError(f"MLPHead: activation must be a class of torch.nn ('GELU') or None, got {activation!r}")
        self.out_channels = out_channels
        batch_norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d
        widths = [in_channels] + [hidden_channels] * (num_layers - 1) + [out_channels]
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(itertools.pairwise(widths)):
            layers.append(nn.Conv2d(c_in, c_out, 1) if dims == 2 else nn.Linear(c_in, c_out))
            nn.init.trunc_normal_(layers[-1].weight, std=0.02)
            nn.init.zeros_(layers[-1].bias)
            if i < num_layers - 1:
                layers += [batch_norm(c_out)] if norm else []
                layers += [getattr(nn, activation)()] if activation else []
        if norm_last:
            layers.append(batch_norm(out_channels, affine=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """``(B, C_in, H, W) -> (B, C_out, H, W)``, or ``(N, C_in) -> (N, C_out)``.

        Rows of the batch where ``counted`` ``(N,)`` is False leave no trace in the others nor in the statistics.
        """
        if counted is None or not self.training:
            return self.layers(x)
        for layer in self.layers:
            x = batch_norm_over_ranks(layer, x, counted) if isinstance(layer, _BatchNorm) else layer(x)
        return x
