"""Settings of their own for parts of a model, at a handful of parameter groups."""

from __future__ import annotations

import copy

from mmengine.optim import OptimWrapper
from torch import nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.backbones import stage_of_parameters
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

_FACTORS = {"lr_mult", "decay_mult", "layer_decay"}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartOptimWrapperConstructor:
    """One parameter group for each part of the model that is named, and one for the rest.

    mmengine's own constructor makes a group of every tensor as soon as one setting is asked for; an optimiser then
    runs a hundred times as many kernels, since its fused calls work within a group. Parameters that take no gradient
    (the teacher's) are left out.

    Args:
        optim_wrapper_cfg: config of the wrapper, with ``optimizer`` inside.
        paramwise_cfg: ``custom_keys`` maps the beginning of parameters' names (``'student.backbone'``) to
            ``lr_mult`` and ``decay_mult``, factors on the optimiser's ``lr`` and ``weight_decay``, and ``layer_decay``
            for a backbone: its last trained stage (plain ViTs: block) has the rate of the part, each earlier one this
            factor less. The longest beginning that fits decides.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.optim_wrapper_cfg = optim_wrapper_cfg
        self.parts: dict[str, dict] = dict((paramwise_cfg or {}).get("custom_keys", {}))
        unknown = (paramwise_cfg or {}).keys() - {"custom_keys"}
        unknown |= {option for options in self.parts.values() for option in options} - _FACTORS
        if unknown:
            raise UserError(
                f"PartOptimWrapperConstructor: paramwise_cfg knows custom_keys with {', '.join(sorted(_FACTORS))}, "
                f"got {sorted(unknown)}"
            )
        for part, options in self.parts.items():
            if not 0 < options.get("layer_decay", 1) <= 1:
                raise UserError(f"paramwise_cfg: layer_decay of {part!r} must be in (0, 1], got {options}")

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build optimiser and wrapper.

        Raises:
            UserError: no parameter's name begins as one of ``custom_keys`` says, or it has no stages.
        """
        cfg = copy.deepcopy(dict(self.optim_wrapper_cfg))
        optimizer = cfg.pop("optimizer")
        network = unwrapped(model)
        stages = {part: _stages(network, part) for part, options in self.parts.items() if "layer_decay" in options}
        members: dict[tuple[str, int], list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                part = max((part for part in ("", *self.parts) if _inside(name, part)), key=len)
                stage = stages[part][name] if part in stages else 0
                members.setdefault((part, stage), []).append(parameter)
        for part in self.parts:
            if not any(part == key for key, _ in members):
                raise UserError(f"paramwise_cfg.custom_keys names {part!r}, but no trained parameter is in it")
        last = {part: max(stage for key, stage in members if key == part) for part in stages}
        order = ["", *self.parts]
        optimizer["params"] = [
            {"params": members[part, stage], **self._settings(part, last.get(part, stage) - stage, optimizer)}
            for part, stage in sorted(members, key=lambda key: (order.index(key[0]), key[1]))
        ]
        return OPTIM_WRAPPERS.build(
            {"type": "OptimWrapper", **cfg}, default_args={"optimizer": OPTIMIZERS.build(optimizer)}
        )

    def _settings(self, part: str, stages_below: int, optimizer: dict) -> dict[str, float]:
        options = self.parts.get(part, {})
        factors = {
            "lr": options.get("lr_mult", 1.0) * options.get("layer_decay", 1.0) ** stages_below,
            "weight_decay": options.get("decay_mult", 1.0),
        }
        if unsaid := [option for option, factor in factors.items() if factor != 1 and option not in optimizer]:
            raise UserError(
                f"paramwise_cfg.custom_keys gives {part or 'the model'!r} a share of {unsaid[0]}, which the config "
                f"of the optimiser does not say: set optim_wrapper.optimizer.{unsaid[0]}"
            )
        return {option: optimizer[option] * factor for option, factor in factors.items() if option in optimizer}


def _stages(model: nn.Module, part: str) -> dict[str, int]:
    """Whole name of each parameter of a backbone -> its stage."""
    try:
        stages = stage_of_parameters(model.get_submodule(part))
    except AttributeError as error:
        raise UserError(f"paramwise_cfg.custom_keys: layer_decay is for a backbone, {part!r} is none") from error
    if len(set(stages.values())) < 2:
        raise UserError(f"paramwise_cfg.custom_keys: layer_decay finds no stages in {part!r}; leave it out")
    return {f"{part}.{name}": stage for name, stage in stages.items()}


def _inside(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}.")
