"""The proof that weights arrived: the target framework's own network gives the same maps as the canonical one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from slotcon_plugin.convert.canonical import CanonicalBackbone, build_canonical
from slotcon_plugin.convert.decoders import DECODERS
from slotcon_plugin.convert.writers.base import Target
from slotcon_plugin.errors import ConversionError

TOLERANCE = 1e-5
"""Largest accepted relative error of a stage's map, float32 on a CPU."""


def prove(
    canonical: CanonicalBackbone, tensors: Mapping[str, Tensor], target: Target, config: str | None = None
) -> dict[str, Any]:
    """Load ``tensors`` strictly into the target's network, run it and the canonical one, compare every stage.

    Args:
        canonical: what was read.
        tensors: what is about to be written, under the target's names.
        target: the format.
        config: transfer config to build the backbone from; None = the recipe's settings.

    Returns:
        How it was proved, for the metadata.

    Raises:
        ConversionError: a key is missing, left over or of another shape, or a stage differs; the stage and the first
            differing key are named.
    """
    names = target.names[canonical.network.library]
    known = {target.table_of(name, canonical).to_target(name) for name in canonical.weights}
    stray = sorted(set(tensors) - known)
    if stray:
        raise ConversionError(f"{target.name}: {stray[0]} has no counterpart in the checkpoint")
    try:
        framework = import_module(target.imports.partition(".")[0])
        import_module(target.imports)
    except Exception as error:  # absent, or present and broken: either way nothing can run in it
        if config is not None:
            raise ConversionError(f"{target.name} cannot be imported, so {config} cannot be built: {error}") from error
        return _prove_by_names(canonical, tensors, target, error)

    with torch.no_grad():
        network = canonical.network
        image = torch.randn(1, 3, *network.image_size, generator=torch.Generator().manual_seed(0))
        maps = build_canonical(canonical)(image)
        pairs = {names.to_target(name): value for name, value in canonical.state_dict.items()}
        backbone = target.build_backbone(network, config)
        optional = {names.to_target(name) for name in network.behind}
        _load_strictly(backbone.module, {name: tensors.get(name) for name in pairs}, target.name, optional)
        got = backbone.run(backbone.module, image)
        errors = _compare(target.name, network.stages, got, maps, backbone.module, pairs)
        computed = {None: tuple(maps)}
        for name, weights in canonical.decoders.items():
            kind = DECODERS[name]
            form, given = kind.form(weights, network.channels), computed[kind.on]
            computed[name] = kind.compute(weights, form, given)
            theirs = target.decoders[name].build(network.channels, form)
            pairs = {target.decoders[name].names.to_target(key): value for key, value in weights.items()}
            _load_strictly(theirs.module, {key: tensors.get(key) for key in pairs}, target.name)
            got, stages = theirs.run(theirs.module, given), kind.outputs(len(given))
            errors |= _compare(target.name, stages, got, computed[name], theirs.module, pairs)
    return {
        "method": "feature parity",
        "framework": f"{framework.__name__} {framework.__version__}",
        "config": config,
        "relative_errors": errors,
        "tolerance": TOLERANCE,
    }


def _prove_by_names(
    canonical: CanonicalBackbone, tensors: Mapping[str, Tensor], target: Target, reason: Exception
) -> dict[str, Any]:
    """Without the framework: the documented key map, read backwards, must give the canonical weights again."""
    for canonical_name, value in canonical.weights.items():
        table = target.table_of(canonical_name, canonical)
        name = table.to_target(canonical_name)
        if name not in tensors or not torch.equal(tensors[name], value) or table.to_canonical(name) != canonical_name:
            raise ConversionError(f"{target.name}: {name} does not carry the checkpoint's {canonical_name}")
    return {
        "method": "key map",
        "framework": None,
        "reason": f"{target.name} cannot be imported here: {reason}",
        "tolerance": 0.0,
    }


def _load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor | None], where: str, optional: Collection[str] = ()
) -> None:
    """Every key matched (but for optional ones), none left over, all shapes equal; the first that is not is named."""
    own = module.state_dict()
    for name, value in own.items():
        if name in optional and name not in tensors:
            continue
        if tensors.get(name) is None:
            raise ConversionError(f"{where}: its network has {name}, which the converted weights lack")
        if tensors[name].shape != value.shape:
            raise ConversionError(
                f"{where}: its network's {name} has shape {tuple(value.shape)}, the converted "
                f"weights have {tuple(tensors[name].shape)}"
            )
    left_over = [name for name in tensors if name not in own]
    if left_over:
        raise ConversionError(
            f"{where}: {left_over[0]} has no place in its network ({len(left_over)} such keys); another stem or depth?"
        )
    module.load_state_dict(tensors, strict=not optional)
    module.eval()


def _compare(
    where: str,
    stages: tuple[str, ...] | list[str],
    maps: tuple[Tensor, ...],
    expected: tuple[Tensor, ...],
    module: nn.Module,
    pairs: Mapping[str, Tensor],
) -> dict[str, float]:
    """Relative error of each stage's map; raises at the first stage beyond the tolerance.

    The tensors are compared too: behind a BatchNorm of weight 0 (how residual blocks start) a wrong one would
    not show in any map.
    """
    loaded = module.state_dict()
    differing = next((name for name, value in pairs.items() if not torch.equal(loaded[name], value)), None)
    errors = {}
    for stage, got, want in zip(stages, maps, expected, strict=True):
        scale = want.abs().max().item()
        if not math.isfinite(scale):
            raise ConversionError(f"{where}: the checkpoint's own map of {stage} is not finite: damaged or diverged")
        if scale == 0:
            raise ConversionError(f"{where}: the checkpoint's own map of {stage} is zero everywhere; nothing to prove")
        if got.shape != want.shape:
            raise ConversionError(
                f"{where}: the map of {stage} has shape {tuple(got.shape)}, want {tuple(want.shape)}; strides differ"
            )
        errors[stage] = (got - want).abs().max().item() / scale
        if not errors[stage] <= TOLERANCE:  # "not <=" also catches NaN
            cause = (
                f"the first differing key is {differing}"
                if differing
                else "all keys arrived as the key map says, so the network itself differs: stride in the 1x1 or 3x3 "
                "convolution (STRIDE_IN_1X1, style), stem or normalisation"
            )
            raise ConversionError(
                f"{where}: the map of {stage} differs by {errors[stage]:.1e}, allowed is {TOLERANCE:.0e} (relative); "
                f"{cause}"
            )
    if differing:
        raise ConversionError(f"{where}: {differing} does not carry the checkpoint's values, though all maps agree")
    return errors
