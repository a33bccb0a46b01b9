"""Collectives that do nothing in one process, so that no caller branches, and a SyncBatchNorm for every device."""

from __future__ import annotations

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from mmengine.model import is_model_wrapper
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce as differentiable_all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without a wrapper for distributed training."""
    return model.module if is_model_wrapper(model) else model


def all_reduce_sum(*tensors: Tensor) -> list[Tensor]:
    """Sums over ranks, without gradient; one collective a tensor."""
    if get_world_size() == 1:
        return list(tensors)
    summed = [tensor.detach().clone() for tensor in tensors]
    for tensor in summed:
        dist.all_reduce(tensor)
    return summed


def gather_ranks(tensor: Tensor) -> Tensor:
    """Concatenate ``(N, ...)`` of every rank to ``(ranks * N, ...)``, without gradient; N is the same on all ranks."""
    if get_world_size() == 1:
        return tensor.detach()
    tensor = tensor.detach().contiguous()
    gathered = [torch.empty_like(tensor) for _ in range(get_world_size())]
    dist.all_gather(gathered, tensor)
    return torch.cat(gathered)


def rank_offset(per_rank: int) -> int:
    """Where this rank's rows begin in what :func:`gather_ranks` returns."""
    return get_rank() * per_rank


def batch_norm_over_ranks(layer: _BatchNorm, x: Tensor, counted: Tensor | None = None) -> Tensor:
    """BatchNorm in training, over the batches of all ranks, in float32; made of differentiable all-reduces.

    Args:
        layer: whose weights and running statistics are used; the latter stay where all ranks have less than two rows.
        x: ``(N, C, ...)``; N may be 0 and differ between ranks.
        counted: which rows count, ``(N,)`` bool; all when None. The others are normalised like them.
    """
    with torch.autocast(x.device.type, enabled=False):
        axes = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        values = x.float()
        if counted is None:
            weight = values.new_ones([len(x)] + [1] * (x.ndim - 1))
        else:
            weight = counted.to(values.dtype).view(-1, *[1] * (x.ndim - 1))
        count = weight.sum(axes) * values[:1, 0].numel() if len(x) else values.new_zeros(1)
        total, rows = _summed_over_ranks(torch.cat([(values * weight).sum(axes), count])).split([layer.num_features, 1])
        mean = total / rows.clamp(min=1)
        centred = values - mean.view(shape)
        squares = _summed_over_ranks((centred.square() * weight).sum(axes))
        variance = squares / rows.clamp(min=1)
        if layer.track_running_stats:
            with torch.no_grad():
                enough = rows[0] >= 2
                layer.running_mean.lerp_(mean, layer.momentum * enough)
                layer.running_var.lerp_(squares / (rows - 1).clamp(min=1), layer.momentum * enough)
                layer.num_batches_tracked.add_(enough)
        out = centred * (variance + layer.eps).rsqrt().view(shape)
        if layer.affine:
            out = out * layer.weight.view(shape) + layer.bias.view(shape)
    return out.to(x.dtype)


def _summed_over_ranks(x: Tensor) -> Tensor:
    return _differentiable_sum(x) if get_world_size() > 1 else x


@torch.compiler.disable  # which would lose its gradient
def _differentiable_sum(x: Tensor) -> Tensor:
    return differentiable_all_reduce(x)


class AnyDeviceSyncBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all ranks on every device, see :func:`batch_norm_over_ranks`.

    torch's own SyncBatchNorm runs on accelerators only, and in half precision it disagrees on the dtype with a rank
    that has no rows. Here such a rank takes part in the collectives like any other.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or get_world_size() == 1:
            return super().forward(x)
        return batch_norm_over_ranks(self, x)


class AnyDeviceSyncBatchNormAct(AnyDeviceSyncBatchNorm):
    """timm's BatchNorm with an activation inside, over all ranks: ``drop`` and ``act`` come after the norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def synchronise_batchnorm(module: nn.Module) -> nn.Module:
    """Make every BatchNorm of ``module`` see the batches of all ranks; leaves it as it is in one process.

    Names, weights, whether they are trained, and the mode stay, as do the activations in timm's ``BatchNormAct2d``.
    """
    if get_world_size() == 1:
        return module
    for name, child in module.named_children():
        if isinstance(child, (nn.SyncBatchNorm, AnyDeviceSyncBatchNorm)):
            continue
        if isinstance(child, _BatchNorm):
            # rows of vectors are slots, of which a rank may have none
            maps = dist.get_backend() != "gloo" and not isinstance(child, nn.BatchNorm1d)
            setattr(module, name, convert_sync_batchnorm(child) if maps else _any_device(child))
        else:
            synchronise_batchnorm(child)
    return module


def _any_device(layer: _BatchNorm) -> AnyDeviceSyncBatchNorm:
    kind = AnyDeviceSyncBatchNormAct if isinstance(layer, BatchNormAct2d) else AnyDeviceSyncBatchNorm
    twin = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    for name, value in {**layer._parameters, **layer._buffers, **dict(layer.named_children())}.items():
        setattr(twin, name, value)
    return twin.train(layer.training)


def zero_like_loss(*parts: Tensor) -> Tensor:
    """A loss of zero that still reaches ``parts``, so that every rank has the same graph."""
    return sum((part.sum() * 0.0 for part in parts), torch.zeros((), device=parts[0].device))


__all__ = [
    "AnyDeviceSyncBatchNorm",
    "AnyDeviceSyncBatchNormAct",
    "all_reduce_sum",
    "batch_norm_over_ranks",
    "gather_ranks",
    "rank_offset",
    "synchronise_batchnorm",
    "unwrapped",
    "zero_like_loss",
]
