"""Collectives that do nothing in one process, so that no caller branches, and a SyncBatchNorm for every device."""

from __future__ import annotations

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from mmengine.model import is_model_wrapper
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


class AnyDeviceSyncBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all ranks, made of differentiable all-reduces.

    torch's own SyncBatchNorm runs on accelerators only; this one serves gloo processes on CPUs. A rank with no rows
    at all takes part in the collectives like any other.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or get_world_size() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            axes = [d for d in range(x.ndim) if d != 1]
            shape = [1, -1] + [1] * (x.ndim - 2)
            values = x.float()
            count = values.new_full((1,), values.numel() / values.shape[1])
            sums = torch.cat([values.sum(axes), values.square().sum(axes), count])
            total, total_squares, rows = differentiable_all_reduce(sums).split([self.num_features] * 2 + [1])
            mean = total / rows
            variance = (total_squares / rows - mean.square()).clamp(min=0)
            if self.track_running_stats:
                with torch.no_grad():
                    unbiased = variance * rows / (rows - 1).clamp(min=1)
                    self.running_mean.lerp_(mean, self.momentum)
                    self.running_var.lerp_(unbiased, self.momentum)
                    self.num_batches_tracked.add_(1)
            out = (values - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
            if self.affine:
                out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)


def synchronise_batchnorm(module: nn.Module) -> nn.Module:
    """Make every BatchNorm of ``module`` see the batches of all ranks; leaves it as it is in one process."""
    if get_world_size() == 1:
        return module
    if dist.get_backend() != "gloo":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, AnyDeviceSyncBatchNorm):
            twin = AnyDeviceSyncBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            twin.load_state_dict(child.state_dict())
            setattr(module, name, twin)
        else:
            synchronise_batchnorm(child)
    return module


def zero_like_loss(*parts: Tensor) -> Tensor:
    """A loss of zero that still reaches ``parts``, so that every rank has the same graph."""
    return sum((part.sum() * 0.0 for part in parts), torch.zeros((), device=parts[0].device))


__all__ = [
    "AnyDeviceSyncBatchNorm",
    "all_reduce_sum",
    "gather_ranks",
    "rank_offset",
    "synchronise_batchnorm",
    "unwrapped",
    "zero_like_loss",
]
