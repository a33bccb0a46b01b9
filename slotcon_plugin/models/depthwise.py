"""Gradients of depthwise convolutions on a CPU, many times as fast as torch's own.

oneDNN has quick kernels for the forward pass, and for the gradient of undilated 3 x 3 weights. All other gradients of
depthwise convolutions fall back to code that takes ten to a hundred times the forward pass, which is half of a training
step of a light net at output stride 16. Both gradients are sums over shifted products and can be had from the quick
kernels: that of the input is a convolution with the turned kernel, that of the weight is put together from blocks of
3 x 3 without stride and dilation. On other devices nothing changes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

_BLOCK = 3  # the size of kernels whose weight gradient oneDNN computes quickly


def depthwise_conv2d(
    x: Tensor, weight: Tensor, stride: int = 1, padding: tuple[int, int] = (0, 0), dilation: int = 1
) -> Tensor:
    """``F.conv2d`` of ``(B, C, H, W)`` with one kernel a channel, ``(C, 1, h, w)``; stride or dilation is 1."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    if _is_quick_already(x, dilation):
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])
    return _Depthwise.apply(x, weight, stride, padding, dilation)


def _is_quick_already(x: Tensor, dilation: int) -> bool:
    return x.dtype == torch.float32 and dilation == 1


def use_quick_gradients(network: nn.Module) -> None:
    """Have all depthwise convolutions of a network take :func:`depthwise_conv2d` on a CPU; names and weights stay."""
    for module in network.modules():
        for plain, quick in ((nn.Conv2d, _QuickConv2d), (Conv2dSame, _QuickConv2dSame)):
            if type(module) is plain and _can_be_quick(module):
                module.__class__ = quick


def _can_be_quick(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and min(conv.kernel_size) >= _BLOCK
        and (max(conv.kernel_size) > _BLOCK or conv.stride != conv.dilation)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.stride[0] == conv.stride[1]
        and conv.dilation[0] == conv.dilation[1]
        and 1 in (conv.stride[0], conv.dilation[0])
        and all(p <= conv.dilation[0] * (k - 1) for p, k in zip(conv.padding, conv.kernel_size))
    )


class _QuickConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        out = depthwise_conv2d(x, self.weight, self.stride[0], self.padding, self.dilation[0])
        return out if self.bias is None else out + self.bias.to(out.dtype).view(-1, 1, 1)


class _QuickConv2dSame(_QuickConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_same(x, self.kernel_size, self.stride, self.dilation))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradients = [
            of(grad, x, weight, *ctx.geometry) if needed else None
            for of, needed in zip((_input_gradient, _weight_gradient), ctx.needs_input_grad)
        ]
        return *gradients, None, None, None


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding, dilation: int) -> Tensor:
    """The gradient convolved with the turned kernel; a row of x was read by every stride-th tap alone."""
    if stride == 1:
        padding = [dilation * (k - 1) - p for k, p in zip(weight.shape[2:], padding)]
        return F.conv2d(grad, weight.flip(2, 3), None, 1, padding, dilation, x.shape[1])
    out = F.pad(x.new_zeros(()).expand_as(x), (padding[1], padding[1], padding[0], padding[0]))
    out = out.contiguous(memory_format=torch.channels_last)
    for row in range(stride):
        for column in range(stride):
            every = (..., slice(row, None, stride), slice(column, None, stride))
            taps = weight[every].flip(2, 3)
            if taps.numel():
                part = F.conv2d(grad, taps, None, 1, [k - 1 for k in taps.shape[2:]], 1, x.shape[1])
                here = out[every][..., : part.shape[2], : part.shape[3]]
                here.copy_(part[..., : here.shape[2], : here.shape[3]])
    return out[..., padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]]


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding, dilation: int) -> Tensor:
    """The tap i of output y reads ``x[stride * y + dilation * i]``: every stride-th tap, or every dilation-th output,
    reads rows that are neighbours once the others are left out."""
    if dilation == 1 and max(weight.shape[2:]) <= _BLOCK:
        return _own_weight_gradient(grad, x, weight, stride, padding)
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    out = torch.zeros_like(weight)
    step = max(stride, dilation)
    for row in range(step):
        for column in range(step):
            every = (..., slice(row, None, step), slice(column, None, step))
            if dilation > 1:
                out += _correlation(x[every], grad[every], *weight.shape[2:])
            else:
                out[every] += _correlation(x[every], grad, *out[every].shape[2:])
    return out


def _correlation(x: Tensor, grad: Tensor, height: int, width: int) -> Tensor:
    """``out[c, 0, i, j]`` = sum over images and positions of ``x[c, y + i, x + j] grad[c, y, x]``."""
    channels, rows, columns = grad.shape[1:]
    out = grad.new_zeros(channels, 1, height, width)
    if not rows or not columns:  # fewer outputs than the dilation
        return out
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    kernel = grad.new_empty(channels, 1, _BLOCK, _BLOCK)
    for i in range(0, height, _BLOCK):
        for j in range(0, width, _BLOCK):
            seen = x[..., i : i + rows + _BLOCK - 1, j : j + columns + _BLOCK - 1]
            short = [columns + _BLOCK - 1 - seen.shape[3], rows + _BLOCK - 1 - seen.shape[2]]
            seen = F.pad(seen, (0, short[0], 0, short[1])).contiguous(memory_format=torch.channels_last)
            block = _own_weight_gradient(grad, seen, kernel, 1, (0, 0))
            out[..., i : i + _BLOCK, j : j + _BLOCK] = block[..., : height - i, : width - j]
    return out


def _own_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
    options = [stride, stride], list(padding), [1, 1], False, [0, 0], x.shape[1], [False, True, False]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *options)[1]
