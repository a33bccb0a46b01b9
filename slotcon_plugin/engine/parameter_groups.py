"""Settings of their own for parts of a model, at a handful of parameter groups."""

from __future__ import annotations

import copy

from mmengine.optim import OptimWrapper
from torch import nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartOptimWrapperConstructor:
    """One parameter group for each part of the model that is named, and one for the rest.

    mmengine's own constructor makes a group of every tensor as soon as one setting is asked for; an optimiser then
    runs a hundred times as many kernels, since its fused calls work within a group. Parameters that take no gradient
    (the teacher's) are left out.

    Args:
        optim_wrapper_cfg: config of the wrapper, with ``optimizer`` inside.
        paramwise_cfg: ``custom_keys`` maps the beginning of parameters' names (``'student.backbone'``) to
            ``lr_mult`` and ``decay_mult``, factors on the optimiser's ``lr`` and ``weight_decay``. The longest
            beginning that fits decides.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.optim_wrapper_cfg = optim_wrapper_cfg
        self.parts: dict[str, dict] = dict((paramwise_cfg or {}).get("custom_keys", {}))
        unknown = (paramwise_cfg or {}).keys() - {"custom_keys"}
        unknown |= {option for options in self.parts.values() for option in options} - {"lr_mult", "decay_mult"}
        if unknown:
            raise UserError(
                f"PartOptimWrapperConstructor: paramwise_cfg knows custom_keys with lr_mult and decay_mult, "
                f"got {sorted(unknown)}"
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build optimiser and wrapper.

        Raises:
            UserError: no parameter's name begins as one of ``custom_keys`` says.
        """
        cfg = copy.deepcopy(dict(self.optim_wrapper_cfg))
        optimizer = cfg.pop("optimizer")
        members: dict[str, list[nn.Parameter]] = {"": []} | {part: [] for part in self.parts}
        for name, parameter in unwrapped(model).named_parameters():
            if parameter.requires_grad:
                members[max((part for part in members if _inside(name, part)), key=len)].append(parameter)
        for part in self.parts:
            if not members[part]:
                raise UserError(f"paramwise_cfg.custom_keys names {part!r}, but no trained parameter is in it")
        optimizer["params"] = [
            {"params": parameters, **self._settings(part, optimizer)}
            for part, parameters in members.items()
            if parameters
        ]
        return OPTIM_WRAPPERS.build(
            {"type": "OptimWrapper", **cfg}, default_args={"optimizer": OPTIMIZERS.build(optimizer)}
        )

    def _settings(self, part: str, optimizer: dict) -> dict[str, float]:
        factors = self.parts.get(part, {})
        return {
            option: optimizer[option] * factors.get(factor, 1.0)
            for option, factor in (("lr", "lr_mult"), ("weight_decay", "decay_mult"))
            if option in optimizer
        }


def _inside(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}.")
