"""A GPU that is not there: its tensors have shapes and a device, and no values."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class FakeGPU(FakeTensorMode):
    """Tensors on a GPU have no values; those on the host are real."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        of_the_host = not any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)))
        if of_the_host and torch.device((kwargs or {}).get("device") or "cpu").type == "cpu":
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


def onto_fake_gpu(model, mode):
    """Replace every parameter and buffer by one of the same shape on a GPU that is not there.

    autograd's engine insists on a real one: parameters get a gradient of their shape at once.
    """
    with mode:
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for name, value in held.items():
                    if value is not None:
                        twin = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
                        held[name] = nn.Parameter(twin, value.requires_grad) if held is module._parameters else twin
                        if value.requires_grad:
                            held[name].grad = torch.empty_like(twin)
    model.data_preprocessor._device = torch.device("cuda")
    return model


class RehearsedGPU(FakeGPU):
    """What goes to the host arrives there as ones, or zeros where it is whole numbers; masks hold everywhere."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        first = args[0] if args else None
        if func is aten._local_scalar_dense.default and isinstance(first, FakeTensor):
            return 1.0 if first.is_floating_point() else 0
        if func is aten.copy_.default and isinstance(args[1], FakeTensor) and not isinstance(first, FakeTensor):
            return first.zero_()  # a flag: nothing was wrong
        to_host = func is aten._to_copy.default and torch.device(kwargs.get("device") or "cuda").type == "cpu"
        if to_host and isinstance(first, FakeTensor):
            return torch.full(first.shape, first.is_floating_point(), dtype=kwargs.get("dtype") or first.dtype)
        if func is aten.nonzero.default and isinstance(first, FakeTensor):
            size, whole = [first.numel(), first.ndim], {"dtype": torch.int64}
            return super().__torch_dispatch__(aten.new_empty.default, types, (first, size), whole)
        if func is aten.index.Tensor and isinstance(first, FakeTensor) and args[1][0].dtype == torch.bool:
            rest = first.shape[args[1][0].ndim :]
            return super().__torch_dispatch__(aten.new_empty.default, types, (first, [args[1][0].numel(), *rest]))
        return super().__torch_dispatch__(func, types, args, kwargs)
